# The members of the workspace, one folder a line, libs before what stands on them.
members() {
    find libs sdks services -name pyproject.toml -not -path '*/node_modules/*' -exec dirname {} \; | sort
}
