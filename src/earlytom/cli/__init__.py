"""The command line, ``earlytom``. Only `earlytom.cli.app` is an entry; nothing here is imported by the library."""
