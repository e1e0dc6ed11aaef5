"""`python -m tsuzuri`, and so `torchrun -m tsuzuri`: the same verbs."""

from tsuzuri.commands import main

if __name__ == "__main__":
    main()
