import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { describe, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { parseIp } from '../../src/address/ip.ts'
import { parseMac } from '../../src/address/mac.ts'
import {
  AnswerLost,
  Connection,
  DumpInterrupted,
  Subscription,
  type SubscriptionEvent,
} from '../../src/netlink/connection.ts'
import { decodeLink, getLink, getLinks } from '../../src/netlink/link.ts'
import {
  NetlinkError,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
  type Request,
} from '../../src/netlink/message.ts'
import {
  decodeNeighbour,
  encodeNeighbour,
  getNeighbours,
  newNeighbour,
  NUD_PERMANENT,
} from '../../src/netlink/neighbour.ts'
import { getNexthops, newNexthop } from '../../src/netlink/nexthop.ts'
import {
  AF_INET,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
} from '../../src/netlink/rtnetlink.ts'

const MAC = parseMac('02:00:00:00:00:01')

describe('a connection', { timeout: 120_000 }, () => {
  test('dumps the links of its namespace, and the process does not move', async () => {
    using host = namespace('links')
    const before = readlinkSync('/proc/thread-self/ns/net')
    using connection = Connection.open({ netns: host.path })
    const names: (string | undefined)[] = []
    await connection.dump(getLinks(), ({ payload }) => names.push(decodeLink(payload).name))
    assert.deepEqual(names, ['lo', 'twn0'])
    assert.equal(readlinkSync('/proc/thread-self/ns/net'), before)
  })

  test('gets one object', async () => {
    using host = namespace('get')
    using connection = Connection.open({ netns: host.path })
    const link = decodeLink((await connection.get(getLink('twn0'))).payload)
    assert.deepEqual([link.name, link.kind], ['twn0', 'bridge'])
    await assert.rejects(connection.get(getLink('twn1')), { name: 'NetlinkError', code: 'ENODEV' })
  })

  test('throws what the kernel says, in its own words', async () => {
    using host = namespace('refused')
    using connection = Connection.open({ netns: host.path })
    await assert.rejects(connection.request(nameless(await indexOf(connection))), {
      name: 'NetlinkError',
      code: 'EINVAL',
      operation: 'RTM_NEWNEIGH',
      kernelMessage: 'Network address not specified',
    })
  })

  test('carries out a batch of 1001 in which the one bad message fails alone', async () => {
    using host = namespace('batch')
    using connection = Connection.open({ netns: host.path })
    const index = await indexOf(connection)
    const requests = Array.from({ length: 1001 }, (_, i) =>
      i === 500 ? nameless(index) : neighbour(index, i),
    )
    const errors = await connection.batch(requests)
    assert.deepEqual([...errors.keys()], [500])
    assert.equal(errors.get(500)?.errno, 22)
    assert.equal(errors.get(500)?.kernelMessage, 'Network address not specified')
    assert.equal(host.ip('neigh', 'show', 'dev', 'twn0').split('\n').length, 1000)
  })

  test('tells every error of a batch in which all fail, the last of each datagram included', async () => {
    using host = namespace('bad')
    using connection = Connection.open({ netns: host.path })
    const index = await indexOf(connection)
    const errors = await connection.batch(Array.from({ length: 2001 }, () => nameless(index)))
    assert.deepEqual(
      [...errors.keys()],
      Array.from({ length: 2001 }, (_, i) => i),
    )
    assert.ok([...errors.values()].every((error) => error instanceof NetlinkError && error.code === 'EINVAL'))
  })

  test('splits a batch of large messages so that the kernel takes each datagram', async () => {
    using host = namespace('large')
    using connection = Connection.open({ netns: host.path })
    const index = await indexOf(connection)
    // An attribute of 40 kB that the kernel does not know.
    const large = (i: number): Request => {
      const unknown = [{ type: 99, value: new Uint8Array(40_000) }]
      const payload = encodeNeighbour({
        family: AF_INET,
        ifindex: index,
        state: NUD_PERMANENT,
        destination: ip(i),
        mac: MAC,
        unknown,
      })
      return { type: RTM_NEWNEIGH, flags: NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE, payload }
    }
    const errors = await connection.batch(Array.from({ length: 20 }, (_, i) => large(i)))
    assert.deepEqual([...errors], [])
    assert.equal(host.ip('neigh', 'show', 'dev', 'twn0').split('\n').length, 20)
  })

  test('gives way to the event loop within a large batch', async () => {
    using host = namespace('turns')
    using connection = Connection.open({ netns: host.path })
    const batch = connection.batch(neighbours(await indexOf(connection), 20_000))
    let turns = 0
    let next = setImmediate(function count() {
      turns++
      next = setImmediate(count)
    })
    await batch
    clearImmediate(next)
    assert.ok(turns >= 4, `${turns} turns`)
  })

  test('gives an empty batch an empty answer', async () => {
    using host = namespace('empty')
    using connection = Connection.open({ netns: host.path })
    assert.deepEqual([...(await connection.batch([]))], [])
  })

  test('throws the error of a dump, and the next dump works', async () => {
    using host = namespace('dump')
    using connection = Connection.open({ netns: host.path })
    const index = await indexOf(connection)
    const strict = {
      type: RTM_GETNEIGH,
      flags: NLM_F_REQUEST | NLM_F_DUMP,
      payload: encodeNeighbour({ family: AF_INET, ifindex: index }),
    }
    await assert.rejects(
      connection.dump(strict, () => undefined),
      {
        code: 'EINVAL',
        kernelMessage: 'Invalid values in header for neighbor dump request',
      },
    )
    await connection.dump(getNeighbours(AF_INET), () => undefined)
  })

  test('reads a dump of many parts, with other calls in the middle of it', async () => {
    using host = namespace('overlap')
    using connection = Connection.open({ netns: host.path })
    const index = await indexOf(connection)
    await connection.batch(neighbours(index, 10_000))
    const seen = [new Set<string>(), new Set<string>()]
    const dumps = seen.map((set) =>
      connection.dump(getNeighbours(AF_INET, index), ({ payload }) => {
        const { state, destination } = decodeNeighbour(payload)
        if (state === NUD_PERMANENT) set.add(String(destination))
      }),
    )
    await Promise.all([...dumps, connection.request(neighbour(index, 0)), connection.get(getLink('twn0'))])
    assert.deepEqual(
      seen.map((set) => set.size),
      [10_000, 10_000],
    )
  })

  test('says that a dump was interrupted, after its end', async () => {
    using host = namespace('interrupted')
    using connection = Connection.open({ netns: host.path })
    using other = Connection.open({ netns: host.path })
    host.ip('link', 'set', 'lo', 'up')
    await connection.batch(Array.from({ length: 10_000 }, (_, i) => blackhole(i + 1)))
    const changed: Promise<void>[] = []
    const dump = connection.dump(getNexthops(), () => {
      if (changed.length === 0) changed.push(other.request(blackhole(20_000)))
    })
    await assert.rejects(dump, DumpInterrupted)
    await Promise.all(changed)
    const ids: number[] = []
    await connection.dump(getNexthops(), ({ payload }) => ids.push(payload.length))
    assert.equal(ids.length, 10_001)
  })

  test('passes on what a visitor throws, and the next dump works', async () => {
    using host = namespace('visitor')
    using connection = Connection.open({ netns: host.path })
    await connection.batch(neighbours(await indexOf(connection), 10_000))
    const dump = connection.dump(getNeighbours(AF_INET), () => {
      throw new RangeError('from the visitor')
    })
    await assert.rejects(dump, new RangeError('from the visitor'))
    let count = 0
    await connection.dump(getNeighbours(AF_INET), () => count++)
    assert.ok(count >= 10_000, `${count} neighbours`)
  })

  test('says that an answer is lost instead of waiting for ever', async () => {
    using host = namespace('silent')
    using connection = Connection.open({ netns: host.path })
    // A GET without NLM_F_DUMP is answered once, and nothing says that this was all.
    await assert.rejects(
      connection.dump(getLink('twn0'), () => undefined),
      AnswerLost,
    )
    await connection.request(neighbour(await indexOf(connection), 0))
  })

  test('refuses work after close', async () => {
    using host = namespace('closed')
    const connection = Connection.open({ netns: host.path })
    connection.close()
    connection.close()
    await assert.rejects(
      connection.dump(getLinks(), () => undefined),
      { code: 'ERR_SOCKET_CLOSED' },
    )
  })
})

describe('a subscription', { timeout: 120_000 }, () => {
  test('holds the notifications of a request when the request is answered', async () => {
    using host = namespace('drain')
    using connection = Connection.open({ netns: host.path })
    const index = await indexOf(connection)
    using subscription = Subscription.open({ netns: host.path, groups: [RTNLGRP_NEIGH] })
    assert.deepEqual(subscription.drain(), [])
    await connection.batch(neighbours(index, 100))
    assert.deepEqual(
      destinations(subscription.drain()),
      Array.from({ length: 100 }, (_, i) => ip(i)),
    )
    assert.deepEqual(subscription.drain(), [])
  })

  test('yields events as they come, in order, also when they are drained in between', async () => {
    using host = namespace('order')
    using connection = Connection.open({ netns: host.path })
    const index = await indexOf(connection)
    using subscription = Subscription.open({ netns: host.path, groups: [RTNLGRP_NEIGH] })
    const seen: SubscriptionEvent[] = []
    await connection.batch(neighbours(index, 100))
    for await (const event of subscription) {
      seen.push(event)
      if (seen.length === 1) {
        await connection.batch([neighbour(index, 100)])
        seen.push(...subscription.drain())
        await connection.batch([neighbour(index, 101)])
      }
      if (destinations(seen).length === 102) break
    }
    assert.deepEqual(
      destinations(seen),
      Array.from({ length: 102 }, (_, i) => ip(i)),
    )
  })

  test('tells an overrun, and from then on loses nothing, flood after flood', async () => {
    using host = namespace('overrun')
    using connection = Connection.open({ netns: host.path })
    const index = await indexOf(connection)
    using subscription = Subscription.open({ netns: host.path, groups: [RTNLGRP_NEIGH], receiveBuffer: 8192 })
    const events = subscription[Symbol.asyncIterator]()
    for (let flood = 0; flood < 3; flood++) {
      const first = events.next()
      await connection.batch(neighbours(index, 150, flood * 150))
      assert.deepEqual(await first, { done: false, value: { kind: 'overrun' } })
      await connection.request(neighbour(index, 60_000 + flood))
      const { value } = await events.next()
      assert.ok(value !== undefined)
      assert.deepEqual(destinations([value]), [ip(60_000 + flood)])
    }
  })

  test('hears only its groups', async () => {
    using host = namespace('groups')
    using connection = Connection.open({ netns: host.path })
    using subscription = Subscription.open({ netns: host.path, groups: [RTNLGRP_LINK] })
    await connection.request(neighbour(await indexOf(connection), 1))
    assert.deepEqual(subscription.drain(), [])
    host.ip('link', 'set', 'twn0', 'down')
    assert.notDeepEqual(subscription.drain(), [])
  })

  test('ends when it is closed while somebody waits', async () => {
    using host = namespace('close')
    const subscription = Subscription.open({ netns: host.path, groups: [RTNLGRP_LINK] })
    const next = subscription[Symbol.asyncIterator]().next()
    await nextTurn()
    subscription.close()
    assert.deepEqual(await next, { done: true, value: undefined })
    assert.equal(await subscription.readable(), false)
  })

  test('ends when it is closed in the loop, whatever is still queued', async () => {
    using host = namespace('break')
    using connection = Connection.open({ netns: host.path })
    const subscription = Subscription.open({ netns: host.path, groups: [RTNLGRP_NEIGH] })
    await connection.batch(neighbours(await indexOf(connection), 1000))
    let events = 0
    for await (const _ of subscription) {
      events++
      subscription.close()
    }
    assert.equal(events, 1)
  })

  test('ends with its signal, before, during and after the wait', async () => {
    using host = namespace('signal')
    const controller = new AbortController()
    const options = { netns: host.path, groups: [RTNLGRP_LINK], signal: controller.signal }
    const next = Subscription.open(options)[Symbol.asyncIterator]().next()
    controller.abort()
    assert.deepEqual(await next, { done: true, value: undefined })
    for await (const _ of Subscription.open(options)) assert.fail('an event after the signal')
  })
})

/** A namespace of its own for a test, with a bridge `twn0` that is up. */
function namespace(name: string): Disposable & { readonly path: string; ip(...args: string[]): string } {
  const netns = `twn-${name}-${process.pid}`
  const run = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' }).trimEnd()
  run('netns', 'add', netns)
  run('-n', netns, 'link', 'add', 'twn0', 'type', 'bridge')
  run('-n', netns, 'link', 'set', 'twn0', 'up')
  return {
    path: `/run/netns/${netns}`,
    ip: (...args) => run('-n', netns, ...args),
    [Symbol.dispose]: () => void run('netns', 'del', netns),
  }
}

async function indexOf(connection: Connection): Promise<number> {
  return decodeLink((await connection.get(getLink('twn0'))).payload).index
}

function ip(i: number) {
  return parseIp(`10.${i >> 16}.${(i >> 8) & 0xff}.${i & 0xff}`)
}

function neighbour(ifindex: number, i: number): Request {
  const entry = { family: AF_INET, ifindex, state: NUD_PERMANENT, destination: ip(i), mac: MAC }
  return newNeighbour(entry, NLM_F_CREATE | NLM_F_REPLACE)
}

function neighbours(ifindex: number, count: number, from = 0): Request[] {
  return Array.from({ length: count }, (_, i) => neighbour(ifindex, from + i))
}

/** A neighbour without an address, which the kernel refuses with a sentence. */
function nameless(ifindex: number): Request {
  return newNeighbour({ family: AF_INET, ifindex, state: NUD_PERMANENT, mac: MAC }, NLM_F_CREATE)
}

function blackhole(id: number): Request {
  return newNexthop({ family: AF_INET, id, blackhole: true }, NLM_F_CREATE)
}

function destinations(events: readonly SubscriptionEvent[]) {
  return events.flatMap((event) => {
    assert.equal(event.kind, 'messages')
    return event.messages.map(({ payload }) => decodeNeighbour(payload).destination)
  })
}
