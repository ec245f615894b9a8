#!/usr/bin/env python3
"""A door that waits for the daemon behind it: door.py PORT BEHIND, both on loopback.

It passes bytes on and knows nothing of what they say. Who comes while the daemon is gone waits until it is back; a
call that the daemon was answering when it went is cut off, as it would be anywhere.
"""
import asyncio
import sys

PATIENCE = 60  # seconds for the daemon to come back
PIECE = 65536  # bytes that are passed on at once


async def reach(port):
    """A connection to the daemon, as soon as there is one."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.05)


async def carry(source, target):
    """Passes on what comes, and that nothing more comes."""
    while piece := await source.read(PIECE):
        target.write(piece)
        await target.drain()
    if target.can_write_eof():
        target.write_eof()


async def serve(reader, writer, port):
    ends = [writer]
    try:
        inner_reader, inner_writer = await reach(port)
        ends.append(inner_writer)
        await asyncio.gather(carry(reader, inner_writer), carry(inner_reader, writer))
    except OSError:
        pass
    finally:
        for end in ends:
            end.close()


async def main():
    port, behind = int(sys.argv[1]), int(sys.argv[2])
    server = await asyncio.start_server(lambda r, w: serve(r, w, behind), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
