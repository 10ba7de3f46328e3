/**
 * Laws of the netlink codec: what is encoded is decoded to the same value, unknown attributes included; and any bytes
 * give a value or a DecodeError.
 */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { Ip } from '../../src/address/ip.ts'
import { ZERO_MAC } from '../../src/address/mac.ts'
import { type Address, decodeAddress, encodeAddress } from '../../src/netlink/address.ts'
import { Writer } from '../../src/netlink/attribute.ts'
import { decodeLink, encodeLink, type Link } from '../../src/netlink/link.ts'
import { decodeAck, Datagram, type Message, type Request, splitMessages } from '../../src/netlink/message.ts'
import { decodeNeighbour, encodeNeighbour, type Neighbour } from '../../src/netlink/neighbour.ts'
import {
  decodeNeighbourTable,
  encodeNeighbourTable,
  type NeighbourTable,
} from '../../src/netlink/neighbour-table.ts'
import { decodeNexthop, encodeNexthop, type Nexthop } from '../../src/netlink/nexthop.ts'
import { decodeRoute, encodeRoute, type Route } from '../../src/netlink/route.ts'
import { AF_BRIDGE, AF_INET, AF_INET6 } from '../../src/netlink/rtnetlink.ts'
import {
  boolean,
  flag,
  i32,
  ip,
  mac,
  name,
  object,
  partial,
  record,
  roundTrip,
  survives,
  survivesAll,
  type Decode,
  u8,
  u16,
  u32,
  unknown,
} from './codec-laws.ts'

const family = fc.constantFrom(AF_INET, AF_INET6, AF_BRIDGE)

const neighbour: fc.Arbitrary<Neighbour> = object(
  { family, ifindex: i32, state: u16, flags: u8, type: u8, unknown },
  {
    destination: ip,
    mac,
    vlan: u16,
    port: u16,
    vni: u32,
    via: u32,
    master: u32,
    flagsExtended: u32,
    protocol: u8,
    nexthop: u32,
    probes: u32,
    cache: record({ confirmed: u32, used: u32, updated: u32, references: u32 }),
  },
)

const route: fc.Arbitrary<Route> = object(
  {
    family: fc.constantFrom(AF_INET, AF_INET6),
    destinationLength: u8,
    sourceLength: u8,
    tos: u8,
    table: u32,
    protocol: u8,
    scope: u8,
    type: u8,
    flags: u32,
    unknown,
  },
  {
    destination: ip,
    source: ip,
    gateway: ip,
    preferredSource: ip,
    iif: u32,
    oif: u32,
    priority: u32,
    nexthop: u32,
  },
)

const nexthop: fc.Arbitrary<Nexthop> = object(
  { family, scope: u8, protocol: u8, flags: u32, unknown },
  {
    id: u32,
    gateway: ip,
    oif: u32,
    blackhole: flag,
    fdb: flag,
    group: fc.array(record({ id: u32, weight: fc.integer({ min: 1, max: 0x10000 }) })),
    groupType: u16,
  },
)

const address: fc.Arbitrary<Address> = object(
  { family, prefixLength: u8, flags: u32, scope: u8, ifindex: u32, unknown },
  { address: ip, local: ip, label: name, broadcast: ip, priority: u32, protocol: u8 },
)

const neighbourTable: fc.Arbitrary<NeighbourTable> = object(
  { family, unknown },
  { name, parameters: object({ unknown }, { ifindex: u32, appProbes: u32 }) },
)

const vxlan = object(
  { unknown },
  {
    vni: u32,
    group: ip,
    link: u32,
    local: ip,
    ttl: u8,
    tos: u8,
    learning: boolean,
    ageing: u32,
    limit: u32,
    portRange: record({ low: u16, high: u16 }),
    proxy: boolean,
    rsc: boolean,
    l2miss: boolean,
    l3miss: boolean,
    port: u16,
    udpCsum: boolean,
    udpZeroCsum6Tx: boolean,
    udpZeroCsum6Rx: boolean,
    gbp: flag,
  },
)

const ipip = object(
  { unknown },
  { link: u32, local: ip, remote: ip, ttl: u8, tos: u8, protocol: u8, pathMtuDiscovery: boolean },
)

const bridge = object(
  { unknown },
  {
    forwardDelay: u32,
    ageingTime: u32,
    stpState: u32,
    vlanFiltering: boolean,
    multicastSnooping: boolean,
  },
)

const header = { family: u8, hardwareType: u16, index: i32, flags: u32, change: u32, unknown }
const attributes = {
  name,
  mtu: u32,
  mac,
  master: u32,
  txqlen: u32,
  link: u32,
  linkNamespace: i32,
  operstate: u8,
  namespaceFd: u32,
  namespacePid: u32,
  extendedMask: u32,
}
const peer = object({ ...header, unknownInfo: fc.constant([]) }, attributes)

const link: fc.Arbitrary<Link> = fc
  .tuple(
    object({ ...header, unknownInfo: unknown }, attributes),
    fc.oneof(
      record({ kind: fc.constant('vxlan'), vxlan }),
      record({ kind: fc.constant('ipip'), ipip }),
      record({ kind: fc.constant('bridge'), bridge }),
      record({ kind: fc.constant('veth'), veth: object({ unknown }, { peer }) }),
      partial({ kind: name }),
    ),
  )
  .map(([plain, info]) => ({ ...plain, ...info }))

describe('what is encoded is decoded to the same value', () => {
  test('links', () => roundTrip(link, encodeLink, decodeLink))
  test('addresses', () => roundTrip(address, encodeAddress, decodeAddress))
  test('routes', () => roundTrip(route, encodeRoute, decodeRoute))
  test('nexthops', () => roundTrip(nexthop, encodeNexthop, decodeNexthop))
  test('neighbours and FDB entries', () => roundTrip(neighbour, encodeNeighbour, decodeNeighbour))
  test('neighbour tables', () => roundTrip(neighbourTable, encodeNeighbourTable, decodeNeighbourTable))

  test('messages', () => {
    const request: fc.Arbitrary<Request> = record({ type: u16, flags: u16, payload: fc.uint8Array() })
    fc.assert(
      fc.property(fc.array(request), u32, (requests, sequence) => {
        const datagram = new Datagram()
        for (const each of requests) datagram.add(each)
        const messages = splitMessages(datagram.finish(sequence))
        const expected = requests.map((r, i) => ({ ...r, sequence: (sequence + i) % 2 ** 32, port: 0 }))
        assert.deepEqual(messages, expected)
      }),
    )
  })

  test('payloads of one writer do not touch each other, even after a failure amid one', () => {
    const writer = new Writer(128)
    fc.assert(
      fc.property(fc.array(neighbour), (neighbours) => {
        const payloads = neighbours.map((value, i) => {
          if (i % 3 === 1)
            assert.throws(() =>
              encodeNeighbour({ ...value, mac: ZERO_MAC, destination: 'none' as Ip }, writer),
            )
          return encodeNeighbour(value, writer)
        })
        assert.deepEqual(payloads.map(decodeNeighbour), neighbours)
      }),
      { numRuns: 50 },
    )
  })
})

describe('any bytes give a value or a DecodeError', () => {
  const decoders: Readonly<Record<string, Decode>> = {
    decodeLink,
    decodeAddress,
    decodeRoute,
    decodeNexthop,
    decodeNeighbour,
    decodeNeighbourTable,
    splitMessages,
    decodeError: (payload) => decodeAck(ack(2, payload)),
    decodeDone: (payload) => decodeAck(ack(3, payload)),
  }

  for (const [title, decode] of Object.entries(decoders)) survivesAll(title, decode)

  test('an attribute of every length, at the top and nested', () => {
    for (let length = 0; length < 40; length++) {
      const payload = encodeLink({ kind: 'vxlan', vxlan: { vni: 1 } })
      for (let at = 16; at < payload.length; at += 4) {
        const bytes = payload.slice()
        new DataView(bytes.buffer).setUint16(at, length, true)
        for (const decode of Object.values(decoders)) survives(decode, bytes)
      }
    }
  })

  test('nests as deep as a payload can hold', () => {
    const IFLA_INFO_DATA = 2
    const VETH_INFO_PEER = 1
    let payload: Uint8Array = encodeLink({})
    while (payload.length < 65000) {
      const data = new Writer().start(0)
      data.putBytes(VETH_INFO_PEER, payload)
      payload = encodeLink({ kind: 'veth', unknownInfo: [{ type: IFLA_INFO_DATA, value: data.finish() }] })
    }
    assert.equal(decodeLink(payload).veth?.peer?.unknown?.length, 1)
  })
})

function ack(type: number, payload: Uint8Array): Message {
  const NLM_F_ACK_TLVS = 0x200
  const NLM_F_CAPPED = 0x100
  return {
    type,
    flags: NLM_F_ACK_TLVS | ((payload[0] ?? 0) & 1 ? NLM_F_CAPPED : 0),
    sequence: 0,
    port: 0,
    payload,
  }
}
