"""Any web site as an environment: tasks are small YAML or Python files in a folder. docs/environments.md shows how."""
