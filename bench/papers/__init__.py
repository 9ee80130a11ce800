"""The tables of papers, with our numbers beside the reported ones."""
