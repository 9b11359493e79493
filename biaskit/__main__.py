"""`python -m biaskit`."""

from biaskit.cli.app import main

main()
