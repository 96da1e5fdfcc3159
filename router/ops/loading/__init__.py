"""Loading the configuration: YAML, environment, files, plugins, and all checks; floor 4."""

from router.ops.loading.case_files import Cases, read_case_file
from router.ops.loading.loader import Loaded, load, read_admin

__all__ = ["Cases", "Loaded", "load", "read_admin", "read_case_file"]
