"""`python -m civae_cli`, as torchrun starts it."""

from civae_cli.app import main

if __name__ == "__main__":
    main()
