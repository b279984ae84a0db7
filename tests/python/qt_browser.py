"""An empty page in the Chromium that Qt brings. With `--check` the program only tells whether Qt has one.

What it does is asked of it over the DevTools protocol, at an address that it says when it listens there.
"""

import os
import socket
import sys

from PySide6.QtCore import QUrl
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


if "--check" not in sys.argv:
    # Qt takes no port 0.
    os.environ["QTWEBENGINE_REMOTE_DEBUGGING"] = f"127.0.0.1:{free_port()}"
    application = QApplication(sys.argv)
    # A page outside a window gets no key events.
    view = QWebEngineView()
    view.resize(1280, 900)
    view.load(QUrl("about:blank"))
    view.show()
    view.setFocus()
    sys.exit(application.exec())
