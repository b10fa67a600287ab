"""Tar shards in object stores: their URLs, reading them, the order of an epoch, and fetching ahead."""
