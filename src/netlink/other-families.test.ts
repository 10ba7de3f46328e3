/** A dump of a whole machine holds more than Ethernet and IP: the codec hands on what it cannot name. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeLink, encodeLink } from './link.ts'
import { decodeNeighbour, encodeNeighbour } from './neighbour.ts'
import { decodeRoute, encodeRoute } from './route.ts'
import { AF_INET } from './rtnetlink.ts'

const AF_MPLS = 28

test('a tunnel whose link-layer address is an IPv4 address', () => {
  const IFLA_ADDRESS = 1
  const address = { type: IFLA_ADDRESS, value: Uint8Array.of(192, 168, 1, 10) }
  const link = decodeLink(encodeLink({ index: 7, name: 'tunl0', unknown: [address] }))
  assert.deepEqual([link.name, link.mac, link.unknown], ['tunl0', undefined, [address]])
})

test('a neighbour on such a tunnel', () => {
  const NDA_LLADDR = 2
  const address = { type: NDA_LLADDR, value: Uint8Array.of(192, 168, 1, 11) }
  const neighbour = decodeNeighbour(encodeNeighbour({ family: AF_INET, ifindex: 7, unknown: [address] }))
  assert.deepEqual([neighbour.mac, neighbour.unknown], [undefined, [address]])
})

test('a route whose destination is an MPLS label', () => {
  const RTA_DST = 1
  const label = { type: RTA_DST, value: Uint8Array.of(0, 6, 65, 0, 0, 7) }
  const route = decodeRoute(encodeRoute({ family: AF_MPLS, destinationLength: 20, unknown: [label] }))
  assert.deepEqual([route.destination, route.unknown], [undefined, [label]])
})
