"""A plugin that can't be imported."""

import no_such_module_for_fax  # noqa: F401
