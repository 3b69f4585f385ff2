"""What the notebooks share to show, to compare and to check. Only notebooks call it."""
