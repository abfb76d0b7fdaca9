"""`python -m climlstm`, which torchrun needs."""

from climlstm.cli import main

main()
