"""How a defense gets onto the board: new, submit, verify, accept; and how an attack on one does: import_attack."""
