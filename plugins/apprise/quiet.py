"""The exclusion of Apprise's log from the router's log, because it quotes URLs."""

import logging

_OF_APPRISE = "apprise"
_OF_ITS_LIBRARIES = ("urllib3", "requests_oauthlib", "oauthlib", "charset_normalizer")


def make_quiet() -> None:
    """Keep the log of Apprise out of the router's log, and the URLs of requests out of the logs of its libraries.

    The error of a failed call contains the text that Apprise logged about the call, without the URL.
    """
    log = logging.getLogger(_OF_APPRISE)
    log.propagate = False
    log.setLevel(logging.WARNING)
    for name in _OF_ITS_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
