import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { NO_KEY } from '../address/key.ts'
import { parseMac } from '../address/mac.ts'
import { parsePrefix } from '../address/prefix.ts'
import { type Entry, MAIN_TABLE, type Peer, PROTOCOL, type Route, type Scope } from '../state.ts'
import { owns } from './ownership.ts'

const SCOPE: Scope = {
  links: new Set(['flannel.1']),
  onDemand: new Set(),
  fdbOnDemand: new Set(),
  underlay: 'eth0',
  networks: [parsePrefix('10.10.0.0/16')],
}
const BOOT = 3
const KERNEL = 2

function route(destination: string, link: string, protocol: number): Route {
  return {
    kind: 'route',
    destination: parsePrefix(destination),
    table: MAIN_TABLE,
    metric: 0,
    link,
    gateway: undefined,
    nexthop: undefined,
    protocol,
  }
}

const mac = parseMac('02:00:00:00:00:01')
const peer: Peer = {
  kind: 'peer',
  link: '',
  publicKey: NO_KEY,
  presharedKey: undefined,
  endpoint: undefined,
  port: undefined,
  keepalive: 0,
  allowedIps: [],
}
const inside = parseIp('10.10.1.1')

const CASES: readonly (readonly [string, boolean, Entry])[] = [
  ['our route', true, route('10.10.1.0/24', 'flannel.1', PROTOCOL)],
  [
    "flanneld's route: no protocol of its own, inside the network",
    true,
    route('10.10.1.0/24', 'flannel.1', BOOT),
  ],
  [
    "an operator's route through our link, outside the network",
    false,
    route('172.16.0.0/16', 'flannel.1', BOOT),
  ],
  [
    'a route with our protocol through our link, outside the network',
    true,
    route('172.16.0.0/16', 'flannel.1', PROTOCOL),
  ],
  ["a second agent's route", false, route('10.10.1.0/24', 'flannel.2', PROTOCOL)],
  ["the kernel's route for an address", false, route('10.10.0.0/16', 'flannel.1', KERNEL)],
  ['our route over the underlay', true, route('10.10.1.0/24', 'eth0', PROTOCOL)],
  ["flanneld's route over the underlay", false, route('10.10.1.0/24', 'eth0', BOOT)],
  ["a second agent's route over the underlay", false, route('10.20.1.0/24', 'eth0', PROTOCOL)],
  ['a route over the whole network and more', false, route('10.0.0.0/8', 'eth0', PROTOCOL)],
  [
    'a permanent neighbour',
    true,
    { kind: 'neighbour', link: 'flannel.1', ip: inside, mac, state: 'permanent' },
  ],
  [
    "the kernel's own neighbour",
    false,
    { kind: 'neighbour', link: 'flannel.1', ip: inside, mac, state: 'other' },
  ],
  ['a neighbour elsewhere', false, { kind: 'neighbour', link: 'eth0', ip: inside, mac, state: 'permanent' }],
  ['an address inside the network', true, { kind: 'address', link: 'flannel.1', ip: inside, length: 32 }],
  [
    "an operator's address",
    false,
    { kind: 'address', link: 'flannel.1', ip: parseIp('172.16.0.1'), length: 32 },
  ],
  ['a WireGuard peer', true, { ...peer, link: 'flannel.1' }],
  ['a WireGuard peer elsewhere', false, { ...peer, link: 'wg0' }],
  ['an FDB entry elsewhere', false, { kind: 'fdb', link: 'flannel.2', mac, destination: inside }],
]

for (const [what, owned, entry] of CASES) {
  test(`${what}: ${owned ? 'ours' : 'foreign'}`, () => assert.equal(owns(SCOPE, entry), owned))
}
