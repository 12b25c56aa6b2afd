"""Examples; a package, because a framework may bring a package of the same name, which would hide a mere folder."""
