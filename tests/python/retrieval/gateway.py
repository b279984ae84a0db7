"""A model gateway that serves `/embeddings`, and nothing else, on 127.0.0.1: a real embedding without a network.

    python tests/python/retrieval/gateway.py [PORT] [--record FILE]

It prints its address when it listens. A record holds the vector of every text that it is asked for, in their order: 384 whole
numbers from -127 to 127 each, for tests that are to run without the model.
"""

import argparse
import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from minilm import NAME, MiniLm

BODY_MAX_BYTES = 8 * 1024 * 1024
TEXTS_MAX = 512


class Refusal(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = None
    record = None

    def do_POST(self):
        try:
            answer, status = self._embeddings(), 200
        except Refusal as refusal:
            answer, status = {"error": {"message": str(refusal), "type": "invalid_request_error"}}, refusal.status
            # The rest of the body would be read as the next request.
            self.close_connection = True
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _embeddings(self):
        if not self.path.rstrip("/").endswith("/embeddings"):
            raise Refusal(404, "only /embeddings is served here")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
            raise Refusal(413, f"a body has a length, of at most {BODY_MAX_BYTES} bytes")
        try:
            asked = json.loads(self.rfile.read(int(length)))
            texts = asked["input"]
        except (ValueError, KeyError, TypeError):
            raise Refusal(400, "a JSON object with an `input` is wanted") from None
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not 0 < len(texts) <= TEXTS_MAX or not all(isinstance(t, str) for t in texts):
            raise Refusal(400, f"`input` is a text, or a list of at most {TEXTS_MAX}")
        vectors = [self.model.embed(text) for text in texts]
        if self.record:
            for vector in vectors:
                # Only the direction of a vector counts.
                self.record.write((vector / abs(vector).max() * 127).round().astype("i1").tobytes())
            self.record.flush()
        if asked.get("encoding_format") == "base64":
            vectors = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        else:
            vectors = [vector.tolist() for vector in vectors]
        data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
        return {"object": "list", "model": NAME, "data": data}

    def log_message(self, *_):
        """Logs nothing: the texts belong to other people."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--record", type=argparse.FileType("wb"), metavar="FILE")
    arguments = parser.parse_args()
    Gateway.model, Gateway.record = MiniLm(), arguments.record
    port = arguments.port
    server = ThreadingHTTPServer(("127.0.0.1", port), Gateway)
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
