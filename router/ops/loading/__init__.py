"""Loading the configuration: YAML, environment, files, plugins, and all checks; floor 4."""

from router.ops.loading.effective import effective
from router.ops.loading.loader import Loaded, load
from router.ops.loading.schema_export import config_schema

__all__ = ["Loaded", "config_schema", "effective", "load"]
