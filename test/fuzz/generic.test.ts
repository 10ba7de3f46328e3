/** Laws of the codecs of generic netlink, and of WireGuard's text protocol. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { ipFamily } from '../../src/address/ip.ts'
import { type Prefix, prefixOf } from '../../src/address/prefix.ts'
import { DecodeError } from '../../src/netlink/attribute.ts'
import type { Bit, Bitset } from '../../src/netlink/bitset.ts'
import { decodeFeatures, encodeFeatures, type Features } from '../../src/netlink/ethtool.ts'
import { decodeFamily, decodeGenericHeader, encodeFamily, type Family } from '../../src/netlink/generic.ts'
import { decodeWireguard, encodeWireguard, joinWireguard, setWireguard } from '../../src/netlink/wireguard.ts'
import { formatKey, type WireguardKey } from '../../src/address/key.ts'
import type { Endpoint, WireguardDevice, WireguardPeer } from '../../src/netlink/wireguard-device.ts'
import { decodeUapiAnswer, encodeUapiSet } from '../../src/netlink/wireguard-uapi.ts'
import {
  boolean,
  type Decode,
  flag,
  ip,
  name,
  object,
  roundTrip,
  survivesAll,
  u8,
  u16,
  u32,
  unknown,
} from './codec-laws.ts'

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const key: fc.Arbitrary<WireguardKey> = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(formatKey)

const endpoint: fc.Arbitrary<Endpoint> = fc
  .tuple(ip, u16, fc.integer({ min: 0, max: 0xffffffff }))
  .map(([address, port, zone]) =>
    ipFamily(address) === 'inet' || zone === 0 ? { address, port } : { address, port, zone: String(zone) },
  )

const prefix: fc.Arbitrary<Prefix> = fc
  .tuple(ip, fc.nat(128))
  .map(([address, length]) => prefixOf(address, ipFamily(address) === 'inet' ? length % 33 : length))

const settings = {
  presharedKey: key,
  endpoint,
  persistentKeepalive: u16,
  remove: flag,
  updateOnly: flag,
  replaceAllowedIps: flag,
}
const peer: fc.Arbitrary<WireguardPeer> = object(
  { publicKey: key, allowedIps: fc.array(prefix, { maxLength: 5 }), unknown },
  {
    ...settings,
    lastHandshake: fc.bigInt({ min: -(10n ** 27n), max: 10n ** 27n }),
    rxBytes: u64,
    txBytes: u64,
    protocolVersion: u32,
  },
)
const device: fc.Arbitrary<WireguardDevice> = object(
  { peers: fc.array(peer, { maxLength: 4 }), unknown },
  {
    ifindex: u32,
    name,
    privateKey: key,
    publicKey: key,
    listenPort: u16,
    fwmark: u32,
    replacePeers: flag,
  },
)

/** What the text protocol can say of a change. */
const change: fc.Arbitrary<WireguardDevice> = object(
  {
    peers: fc.array(object({ publicKey: key, allowedIps: fc.array(prefix, { maxLength: 5 }) }, settings), {
      maxLength: 4,
    }),
  },
  { privateKey: key, listenPort: u16, fwmark: u32, replacePeers: flag },
)

const family: fc.Arbitrary<Family> = object(
  {
    command: u8,
    groups: fc.array(fc.tuple(name, u32), { maxLength: 4 }).map((groups) => new Map(groups)),
    unknown,
  },
  { id: u16, name, version: u32 },
)

const bit: fc.Arbitrary<Bit> = object({ on: boolean }, { index: u32, name })
const bitset: fc.Arbitrary<Bitset> = object(
  { whole: boolean, bits: fc.array(bit, { maxLength: 6 }) },
  { size: u32 },
).map(({ bits, ...set }) => ({ ...set, bits: set.whole ? bits.map((b) => ({ ...b, on: true })) : bits }))
const features: fc.Arbitrary<Features> = object(
  { command: u8, unknown },
  { ifindex: u32, name, changeable: bitset, wanted: bitset, active: bitset, fixed: bitset },
)

describe('what is encoded is decoded to the same value', () => {
  test('families', () => roundTrip(family, encodeFamily, decodeFamily))
  test('features', () => roundTrip(features, encodeFeatures, decodeFeatures))
  test('WireGuard devices', () => roundTrip(device, encodeWireguard, decodeWireguard))

  test('WireGuard devices as text', () => {
    fc.assert(
      fc.property(change, fc.integer({ min: -200, max: 0 }), (value, status) => {
        const [request, ...lines] = encodeUapiSet(value).trimEnd().split('\n')
        assert.equal(request, 'set=1')
        const answer = decodeUapiAnswer([...lines, `errno=${status}`, '', ''].join('\n'))
        assert.deepEqual(answer, { errno: Math.abs(status), device: value })
      }),
    )
  })

  test('a change in several messages says the same as in one', () => {
    const many = fc.array(peer, { minLength: 50, maxLength: 400, size: 'max' })
    fc.assert(
      fc.property(many, key, boolean, (peers, privateKey, replace) => {
        const said = { privateKey, peers, ...(replace && { replacePeers: true }) }
        const parts = setWireguard(30, { ifindex: 7 }, said).map(({ payload }) => decodeWireguard(payload))
        assert.ok(parts.every(({ ifindex }) => ifindex === 7))
        // Else each would take away what those before it brought.
        assert.ok(parts.slice(1).every(({ replacePeers }) => replacePeers === undefined))
        const { ifindex: _, unknown: __, ...joined } = joinWireguard(parts)
        assert.deepEqual(joined, said)
      }),
      { numRuns: 15 },
    )
  })
})

describe('any bytes give a value or a DecodeError', () => {
  const decoders: Readonly<Record<string, Decode>> = {
    decodeGenericHeader,
    decodeFamily,
    decodeFeatures,
    decodeWireguard,
  }
  for (const [title, decode] of Object.entries(decoders)) survivesAll(title, decode)
})

describe('any text gives a value or a DecodeError', () => {
  const survives = (text: string): void => {
    try {
      decodeUapiAnswer(text)
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error
      assert.ok(error.offset <= text.length)
    }
  }
  const keys = fc.constantFrom(
    'private_key',
    'listen_port',
    'fwmark',
    'public_key',
    'preshared_key',
    'endpoint',
    'allowed_ip',
    'last_handshake_time_sec',
    'last_handshake_time_nsec',
    'rx_bytes',
    'tx_bytes',
    'protocol_version',
    'persistent_keepalive_interval',
    'errno',
    'remove',
    'bogus',
    '',
  )
  const values = fc.oneof(
    fc.string(),
    fc.constantFrom(
      '0'.repeat(64),
      '-0',
      '99999999999999999999',
      '[::1]:5',
      '[1.2.3.4]:5',
      '1.2.3.4:65536',
      '::/0',
    ),
  )

  test('any', () => fc.assert(fc.property(fc.string(), survives), { numRuns: 2000 }))

  test('lines of it', () => {
    const lines = fc.array(fc.tuple(keys, values).map((pair) => pair.join('=')))
    fc.assert(
      fc.property(lines, (list) => survives(`public_key=${'0'.repeat(64)}\n${list.join('\n')}\n`)),
      { numRuns: 2000 },
    )
  })

  test('an answer cut off and changed', () => {
    fc.assert(
      fc.property(change, fc.nat(), fc.nat(), fc.string({ maxLength: 2 }), (value, end, at, text) => {
        const whole = `${encodeUapiSet(value).slice('set=1\n'.length).trimEnd()}\nerrno=0\n\n`
        const place = at % whole.length
        survives(whole.slice(0, place) + text + whole.slice(place + text.length))
        survives(whole.slice(0, end % whole.length))
      }),
      { numRuns: 1000 },
    )
  })
})
