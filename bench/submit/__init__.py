"""A defense's way onto the board: new, submit, verify, accept; and the way of whoever breaks one: import_attack."""
