"""An S3-compatible server of a folder on loopback, every answer of which takes its time.

    python benchmarks/s3_server.py FOLDER [--latency 0.05]

Prints its port. Buckets are the folders in FOLDER; without signatures, reading only: GET with
ranges, HEAD and ListObjectsV2.
"""

import argparse
import asyncio
import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


async def serve(folder: Path, latency: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(latency)
                await respond(folder, request.decode("latin-1"), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def respond(folder: Path, request: str, writer: asyncio.StreamWriter) -> None:
    method, target, _ = request.split(" ", 2)
    address = urlsplit(target)
    query = parse_qs(address.query, keep_blank_values=True)
    place = folder / unquote(address.path).strip("/")
    if "list-type" in query or place.is_dir():
        body = listing(place, query.get("prefix", [""])[0], "delimiter" in query).encode()
        await send(writer, "200 OK", len(body), b"" if method == "HEAD" else body)
    elif not place.is_file():
        body = b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
        await send(writer, "404 Not Found", len(body), b"" if method == "HEAD" else body)
    else:
        await send_file(writer, place, request, head=method == "HEAD")


async def send(writer: asyncio.StreamWriter, status: str, length: int, body: bytes = b"") -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode() + body)
    await writer.drain()


async def send_file(writer: asyncio.StreamWriter, place: Path, request: str, *, head: bool) -> None:
    size = place.stat().st_size
    wanted = re.search(r"^range: bytes=(\d*)-(\d*)\r$", request, re.MULTILINE | re.IGNORECASE)
    first, last = 0, size - 1
    if wanted:
        first = int(wanted[1]) if wanted[1] else size - int(wanted[2])
        last = min(int(wanted[2]), last) if wanted[1] and wanted[2] else last
    writer.write(
        f"HTTP/1.1 {'206 Partial Content' if wanted else '200 OK'}\r\n"
        f"Content-Length: {last - first + 1}\r\nContent-Range: bytes {first}-{last}/{size}\r\n"
        f'ETag: "{size}"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n'.encode()
    )
    await writer.drain()
    if not head:
        with place.open("rb") as file:
            loop = asyncio.get_running_loop()
            await loop.sendfile(writer.transport, file, first, last - first + 1)


def listing(bucket: Path, prefix: str, by_folder: bool) -> str:
    top = bucket / prefix
    found = sorted(top.iterdir() if by_folder else top.rglob("*")) if top.is_dir() else []
    entries = "".join(
        f"<CommonPrefixes><Prefix>{escape(str(p.relative_to(bucket)))}/</Prefix></CommonPrefixes>"
        if p.is_dir()
        else f"<Contents><Key>{escape(str(p.relative_to(bucket)))}</Key>"
        f"<Size>{p.stat().st_size}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        "</Contents>"
        for p in found
        if by_folder or p.is_file()
    )
    return (
        '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>'
        f"<Prefix>{escape(prefix)}</Prefix>{entries}</ListBucketResult>"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer")
    options = parser.parse_args()
    asyncio.run(serve(options.folder, options.latency))
