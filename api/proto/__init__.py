"""The wire: `.proto` files and what `generate.py` makes of them. Nothing here is edited but the `.proto`s."""
