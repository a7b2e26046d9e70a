"""onepass cache list | show | verify | delete | migrate | doctor."""

import json
import sys

from onepass.cache.artifacts import to_json
from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.doctor import DoctorConfig, examine, leftovers_text
from onepass.cache.inventory import (
    KeyConfig,
    ListConfig,
    VerifyConfig,
    delete_entry,
    deleted_text,
    entries_table,
    list_entries,
    show_entry,
    verify_entries,
)
from onepass.cache.migrate import MigrateConfig, migrate_store, migrations_text
from onepass.cache.progress import counted

COMMANDS = [
    Command(
        "list",
        "What is stored: rows, bytes, age, what made it.",
        ListConfig,
        list_entries,
        entries_table,
        examples=(
            "onepass cache list",
            "onepass cache list --dataset digits --json",
        ),
    ),
    Command(
        "show",
        "All that one file says of itself.",
        KeyConfig,
        show_entry,
        lambda shown: json.dumps(to_json(shown), indent=2, ensure_ascii=False),
        examples=(
            "onepass cache show digits/pixels",
            "onepass cache show digits/efficientnet_lite0@224",
        ),
    ),
    Command(
        "verify",
        "Read every byte and compare it with the digests.",
        VerifyConfig,
        verify_entries,
        lambda keys: "\n".join(
            [*(f"{key}: as written" for key in keys), f"{counted(len(keys), 'file')} verified"]
        ),
        examples=(
            "onepass cache verify",
            "onepass cache verify digits/pixels",
        ),
    ),
    Command(
        "delete",
        "Delete one file.",
        KeyConfig,
        delete_entry,
        deleted_text,
        examples=(
            "onepass cache delete digits/efficientnet_lite0@224",
            "onepass cache delete digits/pixels",
        ),
    ),
    Command(
        "migrate",
        "Bring files of the format before up to date; nothing is computed again.",
        MigrateConfig,
        migrate_store,
        migrations_text,
        OnSignal.RESUME,
        examples=(
            "onepass cache migrate",
            "onepass cache migrate digits",
        ),
    ),
    Command(
        "doctor",
        "What killed runs left in the store and among the results; --clean removes it.",
        DoctorConfig,
        examine,
        leftovers_text,
        examples=(
            "onepass cache doctor",
            "onepass cache doctor --clean",
        ),
    ),
]

if __name__ == "__main__":
    sys.exit(main("cache", COMMANDS))
