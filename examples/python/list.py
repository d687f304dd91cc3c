#!/usr/bin/env python3
"""A worker on a list: takes events from the list that nginx-conf/queue.conf writes, one at a time, and adds up what each account did.

    REDIS_URL=redis://127.0.0.1:6379/0 python3 list.py worker-1

Run as many as you like, each under a name of its own which it keeps when it is started again. What a worker takes moves to a list of
its own until it is done. Each worker is a reaper too: what one that died had in work goes back to the queue. Needs redis-py
(python3-redis, or pip install redis) and Redis 6.2 or newer. An error of Redis ends it: let systemd start it again.
"""

import json
import os
import sys
import time

import redis

QUEUE = "jobs"
# The braces keep all keys in one slot of a Redis Cluster; "jobs" alone is in the same.
WORKING = "{jobs}:working:"
ALIVE = "{jobs}:alive:"
WORKERS = "{jobs}:workers"
DEAD = "{jobs}:dead"
DONE = "{jobs}:done"
SEEN = "{jobs}:seen:"

# A worker that has not said for so long that it is alive is taken for dead, in milliseconds: longer than the slowest event needs.
LEASE = int(os.environ.get("LEASE_MS", 60_000))
# How long an id is remembered, in seconds: longer than a client, a queue or a spool may take to send an event again.
REMEMBER = 7 * 24 * 3600

# The effect, the mark that it was done and the end of the work are one step: a worker that is killed has done all three or none.
# A number goes through as text, for Lua would round it.
FINISH = """
if redis.call('SET', KEYS[2], 1, 'NX', 'EX', ARGV[2]) then
    redis.call('HINCRBY', KEYS[3], ARGV[3], ARGV[4])
end
return redis.call('LREM', KEYS[1], 1, ARGV[1])
"""

# What a dead worker had goes to the head of the queue, where it came from. Nothing, if the worker has come back meanwhile.
REAP = """
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
local count = 0
while redis.call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT') do
    count = count + 1
end
return count
"""


def main(name):
    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"), decode_responses=True)
    finish = client.register_script(FINISH)
    reap = client.register_script(REAP)
    # What it had when it was killed. Nobody else has this name, so this worker is dead until it says otherwise.
    client.delete(ALIVE + name)
    reap(keys=[ALIVE + name, WORKING + name, QUEUE])
    reaped = 0.0

    while True:
        # Names are never taken out: they are few, and one that is not there would be reaped by nobody.
        with client.pipeline() as pipeline:
            pipeline.sadd(WORKERS, name)
            pipeline.set(ALIVE + name, 1, px=LEASE)
            pipeline.execute()
        if time.monotonic() - reaped > LEASE / 4000:
            reaped = time.monotonic()
            for other in client.smembers(WORKERS):
                if count := reap(keys=[ALIVE + other, WORKING + other, QUEUE]):
                    print(f"{other} is gone, {count} back in the queue", file=sys.stderr)
        # It wakes up early enough to say again that it is alive.
        job = client.blmove(QUEUE, WORKING + name, LEASE / 4000, "LEFT", "RIGHT")
        if job is not None:
            handle(client, WORKING + name, job, finish)


def handle(client, working, job, finish):
    try:
        # An int of Python holds any integer; a float would round above 2^53.
        event = json.loads(job)
        id, account, cents = event["id"], event["account"], event["cents"]
        if type(account) is not int or type(cents) is not int:
            raise ValueError("account and cents must be integers")
    except (KeyError, TypeError, ValueError) as error:
        # A list counts no deliveries, so what fails is set aside at once.
        print(f"{job}: {error!r}", file=sys.stderr)
        with client.pipeline(transaction=True) as pipeline:
            pipeline.lrem(working, 1, job)
            pipeline.rpush(DEAD, job)
            pipeline.execute()
        return
    finish(keys=[working, SEEN + id, DONE], args=[job, REMEMBER, account, cents])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} NAME")
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        pass
