import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import { ipBytes, parseIp } from '../src/address/ip.ts'
import { openIcmp, openNetlink, type Socket } from '../src/native.ts'

const NETNS = `twn-native-${process.pid}`
const NETNS_PATH = `/run/netns/${NETNS}`
const RTNLGRP_LINK = 1

/** RTM_GETLINK, dump, sequence 1: struct nlmsghdr and an empty struct ifinfomsg. */
const DUMP_LINKS = message(18, 0x301, 1, 16)
/** RTM_NEWLINK of no link, which the kernel refuses: an NLMSG_ERROR of 36 bytes. */
const REFUSED = message(16, 0x5, 1, 16)

before(() => {
  execFileSync('ip', ['netns', 'add', NETNS])
})

after(() => {
  execFileSync('ip', ['netns', 'del', NETNS])
})

describe('a socket in a namespace', () => {
  test('is opened there, while the process stays where it is', () => {
    const here = readlinkSync('/proc/self/ns/net')
    using there = opened(NETNS_PATH)
    assert.deepEqual(linkNames(there.socket), ['lo'])
    assert.equal(readlinkSync('/proc/self/ns/net'), here)
    assert.equal(readlinkSync('/proc/thread-self/ns/net'), here)
  })

  test('outlives the name of its namespace', () => {
    const name = `${NETNS}-gone`
    execFileSync('ip', ['netns', 'add', name])
    using there = opened(`/run/netns/${name}`)
    execFileSync('ip', ['netns', 'del', name])
    assert.deepEqual(linkNames(there.socket), ['lo'])
  })

  test('says which file is not there, and which is not a namespace', () => {
    assert.throws(() => openNetlink({ netns: '/run/netns/twn-none' }), {
      code: 'ENOENT',
      errno: 2,
      syscall: 'open',
      message: "ENOENT: no such file or directory, open '/run/netns/twn-none'",
    })
    assert.throws(() => openNetlink({ netns: '/dev/null' }), { code: 'EINVAL', syscall: 'setns' })
  })

  test('takes no path that is cut short by its length or by a NUL', () => {
    for (const netns of [
      '',
      `${NETNS_PATH}\0x`,
      `${'/é'.repeat(1365)}x`,
      `${NETNS_PATH}${'/'.repeat(4096)}`,
    ]) {
      assert.throws(() => openNetlink({ netns }), { code: 'ERR_INVALID_ARG_TYPE' })
    }
  })

  test('is of one of two protocols', () => {
    using generic = opened(NETNS_PATH, { protocol: 16 })
    // CTRL_CMD_GETFAMILY, version 1, of no family: EINVAL, in an NLMSG_ERROR.
    const request = message(16, 0x1, 1, 4)
    request.set([3, 1], 16)
    generic.socket.send(request)
    const answer = new Uint8Array(512)
    assert.equal(generic.socket.receive(answer, 512, new Uint32Array(1), 0), 1)
    assert.equal(new DataView(answer.buffer).getInt32(16, true), -22)
    for (const protocol of [-1, 1, 15, 16.5, 17, 2 ** 32, Number.NaN]) {
      assert.throws(() => openNetlink({ netns: NETNS_PATH, protocol }), {
        code: 'ERR_OUT_OF_RANGE',
        message: 'protocol must be 0 (NETLINK_ROUTE) or 16 (NETLINK_GENERIC)',
      })
    }
  })

  test('is not inherited by child processes', () => {
    using _ = opened(NETNS_PATH)
    const inherited = execFileSync('ls', ['-l', '/proc/self/fd'], { encoding: 'utf8' })
    assert.doesNotMatch(inherited.slice(inherited.indexOf(' 2 ->')), /\b(?:[3-9]|\d\d) -> socket:/)
  })
})

describe('receive', () => {
  test('takes several datagrams at once and says their lengths', () => {
    using it = opened(NETNS_PATH)
    for (let i = 0; i < 3; i++) it.socket.send(REFUSED)
    const lengths = new Uint32Array(8)
    assert.equal(it.socket.receive(new Uint8Array(8 * 512), 512, lengths, 0), 3)
    assert.deepEqual([...lengths], [36, 36, 36, 0, 0, 0, 0, 0])
  })

  test('takes no more than the slots, and leaves the rest queued', () => {
    using it = opened(NETNS_PATH)
    for (let i = 0; i < 3; i++) it.socket.send(REFUSED)
    assert.equal(it.socket.receive(new Uint8Array(1535), 512, new Uint32Array(8), 0), 2)
    assert.equal(it.socket.receive(new Uint8Array(8 * 512), 512, new Uint32Array(8), 0), 1)
  })

  test('tells the true length of a datagram that was cut off, and writes nothing beyond its slot', () => {
    using it = opened(NETNS_PATH)
    it.socket.send(REFUSED)
    const slots = new Uint8Array(40).fill(0xee)
    const lengths = new Uint32Array(1)
    assert.equal(it.socket.receive(slots, 20, lengths, 0), 1)
    assert.equal(lengths[0], 36)
    assert.ok(slots.subarray(20).every((byte) => byte === 0xee))
  })

  test('gives 0 when nothing comes within the timeout', () => {
    using it = opened(NETNS_PATH)
    assert.equal(it.socket.receive(new Uint8Array(512), 512, new Uint32Array(1), 0), 0)
    assert.equal(it.socket.receive(new Uint8Array(512), 512, new Uint32Array(1), 20), 0)
  })

  test('waits within the timeout for the first datagram', async () => {
    using it = opened(NETNS_PATH, { groups: [RTNLGRP_LINK] })
    const later = spawn('sh', ['-c', `sleep 0.1; ip -n ${NETNS} link set lo mtu 1500`])
    assert.equal(it.socket.receive(new Uint8Array(4096), 4096, new Uint32Array(1), 10_000), 1)
    await once(later, 'close')
  })

  test('tells an overrun once, then what was kept', () => {
    using it = opened(NETNS_PATH, { receiveBuffer: 1 })
    for (let i = 0; i < 100; i++) it.socket.send(REFUSED)
    const slots = new Uint8Array(64 * 64)
    const lengths = new Uint32Array(64)
    assert.equal(it.socket.receive(slots, 64, lengths, 0), 'overrun')
    const kept = it.socket.receive(slots, 64, lengths, 0)
    assert.ok(typeof kept === 'number' && kept > 0 && kept < 100, `${kept} datagrams were kept`)
    assert.equal(it.socket.receive(slots, 64, lengths, 0), 0)
    it.socket.send(REFUSED)
    assert.equal(it.socket.receive(slots, 64, lengths, 0), 1)
  })
})

describe('readable', () => {
  test('resolves when a datagram is there, again and again', async () => {
    using it = opened(NETNS_PATH)
    for (let i = 0; i < 3; i++) {
      const readable = it.socket.readable()
      it.socket.send(REFUSED)
      assert.equal(await readable, true)
      assert.equal(it.socket.receive(new Uint8Array(512), 512, new Uint32Array(1), 0), 1)
    }
  })

  test('resolves with false when the socket is closed meanwhile', async () => {
    using it = opened(NETNS_PATH)
    const readable = it.socket.readable()
    it.socket.close()
    assert.equal(await readable, false)
  })

  test('lets what waited close the socket', async () => {
    using it = opened(NETNS_PATH)
    const closed = it.socket.readable().then(() => it.socket.close())
    it.socket.send(REFUSED)
    await closed
    assert.throws(() => it.socket.send(REFUSED), { code: 'ERR_SOCKET_CLOSED' })
  })

  test('goes on after an overrun, which libuv takes for a dead descriptor', async () => {
    using it = opened(NETNS_PATH, { receiveBuffer: 1 })
    const overrun = it.socket.readable()
    for (let i = 0; i < 100; i++) it.socket.send(REFUSED)
    assert.equal(await overrun, true)
    const lengths = new Uint32Array(64)
    assert.equal(it.socket.receive(new Uint8Array(64 * 64), 64, lengths, 0), 'overrun')
    while (it.socket.receive(new Uint8Array(64 * 64), 64, lengths, 0) !== 0);
    const later = it.socket.readable()
    it.socket.send(REFUSED)
    assert.equal(await later, true)
    assert.equal(it.socket.receive(new Uint8Array(64 * 64), 64, lengths, 0), 1)
  })

  test('refuses a second wait', async () => {
    using it = opened(NETNS_PATH)
    const first = it.socket.readable()
    assert.throws(() => it.socket.readable(), { code: 'ERR_ALREADY_WAITING' })
    it.socket.send(REFUSED)
    assert.equal(await first, true)
  })

  test('holds the process while it waits, an idle socket does not', () => {
    const script = (last: string) =>
      `import { openNetlink } from ${JSON.stringify(new URL('../src/native.ts', import.meta.url).href)}
       const socket = openNetlink({ netns: ${JSON.stringify(NETNS_PATH)}, groups: [${RTNLGRP_LINK}] })
       process.on('exit', () => process.stdout.write('left'))
       ${last}`
    const run = (last: string) =>
      execFileSync(process.execPath, ['--input-type=module', '-e', script(last)], { encoding: 'utf8' })
    assert.equal(run(''), 'left')
    assert.equal(run('setTimeout(() => socket.close(), 50).unref(); await socket.readable()'), 'left')
  })
})

describe('the end of a socket', () => {
  test('200 sockets in a row leave no descriptor behind', async () => {
    await descriptorsKept(async () => {
      for (let i = 0; i < 200; i++) {
        using it = opened(NETNS_PATH, { groups: [RTNLGRP_LINK] })
        if (i % 2 === 0) void it.socket.readable()
      }
    })
  })

  test('failed openings leave none either', async () => {
    await descriptorsKept(async () => {
      for (let i = 0; i < 50; i++) {
        assert.throws(() => openNetlink({ netns: '/dev/null' }))
        assert.throws(() => openNetlink({ netns: NETNS_PATH, groups: [0x7fffffff] }), {
          syscall: 'setsockopt',
        })
        assert.throws(() => openIcmp(NETNS_PATH, Uint8Array.of(192, 0, 2, 1)), { code: 'ENETUNREACH' })
      }
    })
  })

  test('a socket that nobody holds is closed, one that waits is not', async () => {
    const collect = exposedCollector()
    execFileSync('ip', ['-n', NETNS, 'link', 'set', 'lo', 'down'])
    await descriptorsKept(async () => {
      for (let i = 0; i < 20; i++) openNetlink({ netns: NETNS_PATH })
      await collect()
    })
    const wait = () => openNetlink({ netns: NETNS_PATH, groups: [RTNLGRP_LINK] }).readable()
    const readable = wait()
    await nextTurn()
    await collect()
    execFileSync('ip', ['-n', NETNS, 'link', 'set', 'lo', 'up'])
    assert.equal(await readable, true)
  })

  test('a worker that ends in the middle of a wait takes its sockets with it', async () => {
    await descriptorsKept(async () => {
      const worker = new Worker(
        `const { parentPort, workerData } = require('node:worker_threads')
         import(workerData.module).then(({ openNetlink }) => {
           const idle = openNetlink({ netns: workerData.netns })
           const waiting = openNetlink({ netns: workerData.netns, groups: [1] })
           waiting.readable()
           parentPort.postMessage('waiting')
         })`,
        {
          eval: true,
          workerData: { module: new URL('../src/native.ts', import.meta.url).href, netns: NETNS_PATH },
        },
      )
      await new Promise((resolve) => worker.once('message', resolve))
      await worker.terminate()
    })
  })
})

describe('a datagram that is delivered on a thread', () => {
  test('has its answer queued when it is', async () => {
    using it = opened(NETNS_PATH)
    await it.socket.deliver(REFUSED)
    assert.equal(it.socket.receive(new Uint8Array(4096), 4096, new Uint32Array(1), 0), 1)
  })

  test('is what was given, whatever becomes of the bytes', async () => {
    using it = opened(NETNS_PATH)
    const bytes = Uint8Array.from(REFUSED)
    const delivered = it.socket.deliver(bytes)
    bytes.fill(0)
    await delivered
    assert.equal(it.socket.receive(new Uint8Array(4096), 4096, new Uint32Array(1), 0), 1)
  })

  test('may outlive its socket', async () => {
    const it = opened(NETNS_PATH)
    const deliveries = Array.from({ length: 20 }, () => it.socket.deliver(REFUSED))
    it.socket.close()
    await Promise.all(deliveries)
    assert.throws(() => it.socket.deliver(REFUSED), { code: 'ERR_SOCKET_CLOSED' })
  })

  test('that cannot be sent is an error with the system call and its errno', async () => {
    using it = opened(NETNS_PATH)
    const delivered = it.socket.deliver(new Uint8Array(16 * 1024 * 1024))
    await assert.rejects(delivered, { code: 'EMSGSIZE', syscall: 'send', errno: 90 })
  })
})

test('an ICMP socket sends to its destination and receives what comes from there', async () => {
  execFileSync('ip', ['-n', NETNS, 'link', 'set', 'lo', 'up'])
  const socket = openIcmp(NETNS_PATH, Uint8Array.of(127, 0, 0, 1))
  try {
    // Echo request, identifier 0x1234, sequence 1, no data; the checksum is the complement of the sum.
    socket.send(Uint8Array.of(8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1))
    const types: (number | undefined)[] = []
    while (types.length < 2) {
      assert.equal(await socket.readable(), true)
      const slot = new Uint8Array(64)
      assert.equal(socket.receive(slot, 64, new Uint32Array(1), 1000), 1)
      assert.equal(slot[0], 0x45)
      types.push(slot[20])
    }
    assert.deepEqual(types, [8, 0], 'the request, since this is loopback, and the reply')
  } finally {
    socket.close()
  }
})

test('an ICMPv6 socket receives without the IPv6 header, and what it sends gets a checksum', async () => {
  execFileSync('ip', ['-n', NETNS, 'link', 'set', 'lo', 'up'])
  const socket = openIcmp(NETNS_PATH, ipBytes(parseIp('::1')))
  try {
    socket.send(Uint8Array.of(128, 0, 0, 0, 0x12, 0x34, 0, 1))
    const types: (number | undefined)[] = []
    while (types.length < 2) {
      assert.equal(await socket.readable(), true)
      const slot = new Uint8Array(64)
      const lengths = new Uint32Array(1)
      assert.equal(socket.receive(slot, 64, lengths, 1000), 1)
      assert.deepEqual([lengths[0], ...slot.subarray(4, 8)], [8, 0x12, 0x34, 0, 1])
      types.push(slot[0])
    }
    assert.deepEqual(types, [128, 129], 'the request, since this is loopback, and the reply')
  } finally {
    socket.close()
  }
})

function opened(
  netns: string,
  options: { protocol?: number; groups?: readonly number[]; receiveBuffer?: number } = {},
): Disposable & { readonly socket: Socket } {
  const socket = openNetlink({ netns, ...options })
  return { socket, [Symbol.dispose]: () => socket.close() }
}

async function descriptorsKept(work: () => Promise<void>): Promise<void> {
  openNetlink({ netns: NETNS_PATH }).close()
  const before = readdirSync('/proc/self/fd').length
  await work()
  assert.equal(readdirSync('/proc/self/fd').length, before)
}

/** Collects garbage, and lets the finalizers run. */
function exposedCollector(): () => Promise<void> {
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  assert.ok(typeof gc === 'function')
  return async () => {
    gc()
    await nextTurn()
    await nextTurn()
  }
}

function message(type: number, flags: number, sequence: number, size: number): Uint8Array {
  const bytes = Buffer.alloc(16 + size)
  bytes.writeUInt32LE(bytes.length, 0)
  bytes.writeUInt16LE(type, 4)
  bytes.writeUInt16LE(flags, 6)
  bytes.writeUInt32LE(sequence, 8)
  return bytes
}

/** IFLA_IFNAME is the first attribute of a link. */
function linkNames(socket: Socket): string[] {
  socket.send(DUMP_LINKS)
  const slot = Buffer.alloc(32768)
  const lengths = new Uint32Array(1)
  assert.equal(socket.receive(slot, slot.length, lengths, 1000), 1)
  const names: string[] = []
  for (let at = 0; at < (lengths[0] ?? 0); at += slot.readUInt32LE(at)) {
    const name = slot.subarray(at + 36, at + 32 + slot.readUInt16LE(at + 32) - 1)
    if (slot.readUInt16LE(at + 4) === 16) names.push(name.toString())
  }
  return names
}
