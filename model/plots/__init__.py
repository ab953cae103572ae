"""Pictures in one hand: style.py has what all of them share."""
