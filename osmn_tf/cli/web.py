"""Opens a page in the browser in which objects of a video are clicked and tracked; nothing leaves this computer.

The page is served on the loopback interface only, and runs an exported network in the browser itself.
"""

from __future__ import annotations

import argparse
import webbrowser

EXAMPLES = """examples:
  osmn web
  osmn web --preset exported/           a network of 'osmn export --format litert'
  osmn web --port 8642 --no-open        the address is printed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `osmn web`."""
    parser.epilog = EXAMPLES
    parser.add_argument("--preset", metavar="EXPORTED_FOLDER", help="the network (default: the one in the page)")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="default: any free one")
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")


def run(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C and returns the exit code."""
    from osmn_tf.web import PageServer, find_page

    site, network = find_page(arguments.preset)
    with PageServer(site, network, arguments.port) as server:
        print(f"The page is at {server.url} until you press Ctrl-C here.", flush=True)
        if not arguments.no_open:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
