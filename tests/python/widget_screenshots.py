"""Writes the screenshots of the guide, spec/guide/widget/*.png: `python tests/python/widget_screenshots.py BINARY`."""

import base64
import sys
import tempfile
from pathlib import Path

from product import start_product
from widget_page import IDLE, widget_on

TARGET = Path(__file__).resolve().parents[2] / "spec" / "guide" / "widget"
CARD = "$('.card:not(.settled) button:enabled')"
FORM = 'call request_identity_intake {"fields": [{"key": "email"}, {"key": "name", "required": false}], "reason": "To send you the receipt"}'
CHOICES = (
    'call request_choices {"questions": [{"question": "Which size?", "header": "Size", '
    '"options": [{"label": "Small", "description": "Up to 5 kg"}, {"label": "Large"}]}], "reason": "To find the right parcel"}'
)
PHONE = {"width": 375, "height": 667, "deviceScaleFactor": 1, "mobile": True}
DESKTOP = {"width": 900, "height": 640, "deviceScaleFactor": 1, "mobile": False}


def shoot(widget, name):
    """Saves the visible part of the page."""
    shot = widget.page.call("Page.captureScreenshot", format="png")
    (TARGET / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def main(binary):
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with start_product(binary, store=folder / "store", log=folder / "log") as product:
            for theme in ("light", "dark"):
                for screen, size in (("desktop", DESKTOP), ("phone", PHONE)):
                    place = folder / f"{screen}-{theme}"
                    place.mkdir()
                    with widget_on(product, place, f'data-agent="support" data-theme="{theme}"') as widget:
                        widget.page.call("Emulation.setDeviceMetricsOverride", **size)
                        widget.say("How long is your return window?")
                        widget.wait("$('.sources') && " + IDLE)
                        shoot(widget, f"{screen}-{theme}")
                        if (screen, theme) == ("desktop", "light"):
                            shoot_cards(widget)


def shoot_cards(widget):
    for name, message, skip in (("approval", "Refund my order ORD-1234", "Reject"), ("form", FORM, "Skip"), ("choices", CHOICES, "Skip")):
        widget.click("New conversation")
        widget.wait("!$('.message') && $('.status').textContent === ''")
        widget.say(message)
        widget.wait(CARD)
        shoot(widget, f"card-{name}")
        widget.click(skip)
        widget.wait(IDLE)


if __name__ == "__main__":
    main(sys.argv[1])
