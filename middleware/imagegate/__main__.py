"""``python -m imagegate``."""

from imagegate.cli.commands import main

raise SystemExit(main())
