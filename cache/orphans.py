"""Worker processes that do not outlive the process they work for."""

import os
import threading
import time

PERIOD = 1.0  # seconds between two looks


def end_with_parent(parent: int) -> None:
    """Let this process end soon after the one that started it has gone, however that went.

    A parent that is killed cannot tell its workers, which would compute on for nobody.

    Args:
        parent: Its number, which the parent itself gives: it may have gone before this is called.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PERIOD)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
