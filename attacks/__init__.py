"""The attacks that come with the benchmark: one file each, and one line here."""

BUILT_IN: dict[str, str] = {
}
