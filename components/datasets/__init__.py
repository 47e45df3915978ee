BUILT_IN: dict[str, str] = {}
