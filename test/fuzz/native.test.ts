/**
 * Hostile arguments for every entry point of the addon: each call returns or throws an Error, whatever it is given.
 * `scripts/test-asan` runs this where a stray access does not go unnoticed.
 */

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import { openIcmp, openNetlink, openUnix, type Socket } from '../../src/native.ts'

const NETNS = `twn-fuzz-${process.pid}`
const NETNS_PATH = `/run/netns/${NETNS}`

before(() => {
  execFileSync('ip', ['netns', 'add', NETNS])
  execFileSync('ip', ['-n', NETNS, 'link', 'set', 'lo', 'up'])
})

after(() => {
  listener.kill()
  execFileSync('ip', ['netns', 'del', NETNS])
})

/** A unix datagram socket that takes whatever is sent. */
const LISTENER = `@twn-fuzz-${process.pid}`
const LISTEN = `use Socket; $| = 1; my $name = "\\0" . substr(shift, 1);
  socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die $!; bind($s, sockaddr_un($name)) or die $!;
  print "bound\\n"; while (defined recv($s, my $got, 65536, 0)) {}`
const listener = spawn('perl', ['-e', LISTEN, LISTENER], { stdio: ['ignore', 'pipe', 'inherit'] })
await once(listener.stdout, 'data')

const METHODS = ['send', 'deliver', 'receive', 'readable', 'close'] as const

/** Small, because a timeout may be among them. */
const numbers = fc.constantFrom(
  0,
  1,
  2,
  3,
  16,
  63,
  64,
  65,
  512,
  -1,
  -0,
  0.5,
  -(2 ** 31),
  2 ** 32 + 1,
  Number.NaN,
  -Infinity,
)

const typedArrays = fc
  .record({
    type: fc.constantFrom(
      Uint8Array,
      Uint32Array,
      Int8Array,
      Uint8ClampedArray,
      Uint16Array,
      Int32Array,
      Float64Array,
    ),
    length: fc.constantFrom(0, 1, 2, 3, 16, 63, 64, 65, 4096),
    offset: fc.constantFrom(0, 8, 16),
    memory: fc.constantFrom('fixed', 'detached', 'shared', 'resizable', 'shrunk'),
  })
  .map(({ type, length, offset, memory }): unknown => {
    const size = offset + length * type.BYTES_PER_ELEMENT
    if (memory === 'shared') return Reflect.construct(type, [new SharedArrayBuffer(size), offset, length])
    if (memory === 'fixed') return new type(new ArrayBuffer(size), offset, length)
    const buffer = new ArrayBuffer(size, { maxByteLength: size + 64 })
    const array = memory === 'resizable' ? new type(buffer, offset) : new type(buffer, offset, length)
    if (memory === 'detached') structuredClone(buffer, { transfer: [buffer] })
    if (memory === 'shrunk') buffer.resize(0)
    return array
  })

const paths = fc.constantFrom(
  '',
  '/dev/null',
  '/run/netns/twn-none',
  `${NETNS_PATH}\0x`,
  'x'.repeat(4094),
  'x'.repeat(4095),
  'é'.repeat(9999),
)

const others = fc
  .constantFrom(
    undefined,
    null,
    true,
    10n,
    Symbol('s'),
    {},
    [],
    [1, 2],
    () => 0,
    new DataView(new ArrayBuffer(8)),
    new ArrayBuffer(8),
  )
  .chain((value) =>
    fc.constantFrom(value, new Proxy(new Uint8Array(8), {}), Object.create(Uint8Array.prototype)),
  )

const values: fc.Arbitrary<unknown> = fc.oneof(numbers, typedArrays, paths, others)
const calls = fc.array(fc.tuple(fc.constantFrom(...METHODS), fc.array(values, { maxLength: 5 })), {
  maxLength: 12,
})

describe('hostile arguments', () => {
  for (const [name, open] of Object.entries({
    NetlinkSocket: () => openNetlink({ netns: NETNS_PATH, groups: [1], receiveBuffer: 4096 }),
    'NetlinkSocket, generic': () => openNetlink({ netns: NETNS_PATH, protocol: 16 }),
    IcmpSocket: () => openIcmp(NETNS_PATH, Uint8Array.of(127, 0, 0, 1)),
    UnixSocket: () => openUnix(LISTENER),
  })) {
    test(`to the methods of ${name}, open and closed`, () => {
      fc.assert(
        fc.property(calls, (list) => {
          const socket = open()
          for (const [method, args] of list) attempt(() => call(socket, method, args))
          socket.close()
          socket.close()
          for (const [method, args] of list) attempt(() => call(socket, method, args))
        }),
        { numRuns: 1500 },
      )
    })

    test(`to receive of ${name}, nearly right`, () => {
      const socket = open()
      const sizes = fc.oneof(numbers, fc.integer({ min: 1, max: 8192 }))
      fc.assert(
        fc.property(typedArrays, sizes, typedArrays, numbers, (slots, size, lengths, timeout) => {
          attempt(() => socket.send(new Uint8Array(40)))
          attempt(() => call(socket, 'receive', [slots, size, lengths, timeout]))
        }),
        { numRuns: 3000 },
      )
      socket.close()
    })

    test(`to the constructor of ${name}`, () => {
      const first = open()
      const constructor = first.constructor as (...args: unknown[]) => Socket
      first.close()
      fc.assert(
        fc.property(fc.array(values, { maxLength: 5 }), (args) => {
          attempt(() => (Reflect.construct(constructor, args) as Socket).close())
          assert.throws(() => Reflect.apply(constructor, {}, args), TypeError)
        }),
        { numRuns: 1500 },
      )
    })

    test(`to the methods of ${name}, as those of another object`, () => {
      const socket = open()
      fc.assert(
        fc.property(fc.constantFrom(...METHODS), values, (method, receiver) => {
          assert.throws(() => Reflect.apply(socket[method], receiver, []), TypeError)
        }),
        { numRuns: 500 },
      )
      socket.close()
    })
  }

  test('a method of one class does not take a socket of the other', () => {
    const netlink = openNetlink({ netns: NETNS_PATH })
    const icmp = openIcmp(NETNS_PATH, Uint8Array.of(127, 0, 0, 1))
    for (const method of METHODS) assert.throws(() => Reflect.apply(netlink[method], icmp, []), TypeError)
    netlink.close()
    icmp.close()
  })
})

function call(socket: Socket, method: (typeof METHODS)[number], args: readonly unknown[]): unknown {
  return Reflect.apply(socket[method], socket, args)
}

/** A promise may fail later in the same way; one that fails otherwise fails the test file. */
function attempt(work: () => unknown): void {
  try {
    const result = work()
    if (result instanceof Promise) result.catch(checkError)
  } catch (error) {
    checkError(error)
  }
}

function checkError(error: unknown): void {
  assert.ok(error instanceof Error, `threw ${String(error)}`)
  assert.ok('code' in error && typeof error.code === 'string', `an error without a code: ${error.message}`)
}
