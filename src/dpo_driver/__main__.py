"""``python -m dpo_driver`` is ``dpo-driver``."""

from dpo_driver.cli.main import main

main()
