"""Loading the configuration: YAML, environment, files, plugins, every check that needs no event; floor 4."""

from router.ops.loading.effective import effective
from router.ops.loading.loader import Loaded, load
from router.ops.loading.schema_export import config_schema
from router.ops.loading.schema_files import SchemaEntry

__all__ = ["Loaded", "SchemaEntry", "config_schema", "effective", "load"]
