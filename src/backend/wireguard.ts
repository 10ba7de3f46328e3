/**
 * The wireguard backend: a device of the kernel's WireGuard, or of wireguard-go, in which each peer is known by its
 * public key. The whole network is routed into the device; the peers' allowed IPs say who gets what.
 *
 * As in flannel there is a device for each family, each with its own port (`separate`), or one that carries both and
 * sends over IPv4, over IPv6, or over what reaches each peer best (`ipv4`, `ipv6`, `auto`).
 *
 * In those modes flannel announces ListenPortV6 beside the IPv6 data, where nothing listens. Here BackendV6Data says the
 * port of the one device, and of a peer's two ports the one in BackendData is believed, which is right for both agents.
 */

import { AddressError, type Family, familyBits, type Ip, type PerFamily } from '../address/ip.ts'
import {
  formatKey,
  KEY_BYTES,
  NO_KEY,
  parseKey,
  publicKeyOf,
  Secret,
  type WireguardKey,
} from '../address/key.ts'
import { type Prefix, parsePrefix, prefixBase, prefixContains } from '../address/prefix.ts'
import type { NetworkConfig } from '../config/network-config.ts'
import type { Lease } from '../lease/lease.ts'
import type { Entry, Link, Peer } from '../state.ts'
import { type Backend, FAMILY_NAMES, familiesOf, type HostFacts, type Verdict } from './backend.ts'
import { requireAddress, scopeOf } from './links.ts'
import { routeTo } from './routes.ts'
import { type Mode, OVERHEAD, readWireguardSettings, type WireguardSettings } from './wireguard-settings.ts'

const NAMES: Readonly<Record<Family, string>> = { inet: 'flannel-wg', inet6: 'flannel-wg-v6' }
const DATA: Readonly<Record<Family, string>> = { inet: 'BackendData', inet6: 'BackendV6Data' }

/** BackendData and BackendV6Data, exactly as flannel writes them. */
interface WireguardData {
  readonly PublicKey: WireguardKey
  readonly Port: number
}

/** One of our devices. */
interface Device {
  readonly link: Link
  readonly listenPort: number
  /** Those that it carries. */
  readonly families: readonly Family[]
}

/** What a peer is to one of our devices. */
interface PeerEnd {
  readonly device: Device
  readonly publicKey: WireguardKey
  readonly endpoint: Ip
  readonly port: number
  readonly subnets: readonly Prefix[]
}

/** Any key: what a config says is right or wrong with each of them. */
const SOME_KEY = new Secret(formatKey(new Uint8Array(KEY_BYTES).fill(1)))

/** @throws {ConfigError} */
export function checkWireguard(config: NetworkConfig, host: HostFacts): void {
  wireguard(config, host, SOME_KEY)
}

/** @param privateKey Of all devices of this host. @throws {ConfigError} */
export function wireguard(config: NetworkConfig, host: HostFacts, privateKey: Secret): Backend {
  const settings = readWireguardSettings(config, host)
  const families = familiesOf(config.ranges)
  for (const family of families) requireAddress(family, host, 'wireguard')
  const publicKey = publicKeyOf(privateKey.reveal())
  const devices = makeDevices(settings, families).map(
    ({ name, ...device }): Device => ({
      ...device,
      link: {
        kind: 'link',
        name,
        mac: undefined,
        mtu: settings.outerMtu - OVERHEAD,
        up: true,
        appProbes: {},
        tunnel: { type: 'wireguard', publicKey, privateKey, listenPort: device.listenPort },
      },
    }),
  )
  const names = devices.map(({ link }) => link.name)
  const endsOf = (lease: Lease): PeerEnd[] =>
    settings.mode === 'separate'
      ? devices.flatMap((device) => separateEnd(device, lease))
      : devices.flatMap((device) => sharedEnd(device, lease, settings.mode, host))
  return {
    type: 'wireguard',
    leaseType: 'wireguard',
    mac: {},
    mtu: settings.outerMtu - OVERHEAD,
    scope: { ...scopeOf(host, config, names), wireguard: new Set(names) },
    needsUnderlay: false,
    advertised: advertise(devices, publicKey),
    judge: (lease) => judge(lease, families, publicKey, endsOf),
    own: (lease) => ({
      entries: devices.flatMap((device) => ownEntries(device, lease, config)),
      answers: [],
    }),
    peer: (lease) => ({
      entries: endsOf(lease).map((end) => peerEntry(end, settings)),
      answers: [],
    }),
  }
}

function makeDevices(
  { mode, listenPorts }: WireguardSettings,
  families: readonly Family[],
): (Omit<Device, 'link'> & { readonly name: string })[] {
  if (mode !== 'separate') return [{ name: NAMES.inet, listenPort: listenPorts.inet, families }]
  return families.map((family) => ({
    name: NAMES[family],
    listenPort: listenPorts[family],
    families: [family],
  }))
}

function advertise(devices: readonly Device[], publicKey: WireguardKey): PerFamily<WireguardData> {
  return Object.fromEntries(
    devices.flatMap(({ families, listenPort }) =>
      families.map((family) => [family, { PublicKey: publicKey, Port: listenPort } satisfies WireguardData]),
    ),
  )
}

function ownEntries({ link, families }: Device, { subnets }: Lease, { ranges }: NetworkConfig): Entry[] {
  const entries: Entry[] = [link]
  for (const family of families) {
    const subnet = subnets[family]
    const network = ranges[family]?.network
    if (subnet !== undefined) {
      entries.push({ kind: 'address', link: link.name, ip: prefixBase(subnet), length: familyBits(family) })
    }
    if (network !== undefined) entries.push(routeTo(network, link.name, undefined))
  }
  return entries
}

function peerEntry(
  { device, publicKey, endpoint, port, subnets }: PeerEnd,
  settings: WireguardSettings,
): Peer {
  const { presharedKey, keepalive } = settings
  const allowedIps = subnets.toSorted()
  return {
    kind: 'peer',
    link: device.link.name,
    publicKey,
    presharedKey,
    endpoint,
    port,
    keepalive,
    allowedIps,
  }
}

/** Over the family that it carries. None where the peer has no part in it. @throws {AddressError} for data that is wrong. */
function separateEnd(device: Device, lease: Lease): PeerEnd[] {
  return device.families.flatMap((family) => {
    const subnet = lease.subnets[family]
    const endpoint = lease.publicIps[family]
    const data = lease.backendData[family]
    if (subnet === undefined || endpoint === undefined || data === undefined) return []
    const { publicKey, port } = readData(family, data)
    return [{ device, publicKey, endpoint, port: port ?? device.listenPort, subnets: [subnet] }]
  })
}

/** Both families by one way. @throws {AddressError} for data that is wrong, or says two keys. */
function sharedEnd(device: Device, lease: Lease, mode: Mode, host: HostFacts): PeerEnd[] {
  const { subnets, publicIps } = lease
  const found = device.families.flatMap((family) => {
    const data = lease.backendData[family]
    return data === undefined ? [] : [readData(family, data)]
  })
  const [first] = found
  if (first === undefined) return []
  if (found.some(({ publicKey }) => publicKey !== first.publicKey)) {
    throw new AddressError('its BackendData and BackendV6Data have different PublicKeys')
  }
  const family = chooseFamily(mode, publicIps, host)
  const endpoint = publicIps[family]
  if (endpoint === undefined) {
    throw new AddressError(
      `it has no public ${FAMILY_NAMES[family]} address, which the Mode ${mode} sends to`,
    )
  }
  const port = found.find((data) => data.port !== undefined)?.port ?? device.listenPort
  const carried = device.families.flatMap((one) => subnets[one] ?? [])
  return carried.length === 0
    ? []
    : [{ device, publicKey: first.publicKey, endpoint, port, subnets: carried }]
}

/** flannel's choice: IPv4 where it surely leads there, then IPv6 where both are public, else IPv4 and hope. */
function chooseFamily(mode: Mode, { inet, inet6 }: PerFamily<Ip>, { publicIps: own }: HostFacts): Family {
  if (mode === 'ipv4') return 'inet'
  if (mode === 'ipv6') return 'inet6'
  if (inet6 === undefined) return 'inet'
  if (inet === undefined) return 'inet6'
  if (!isPrivate(inet) && own.inet !== undefined) return 'inet'
  return !isPrivate(inet6) && own.inet6 !== undefined && !isPrivate(own.inet6) ? 'inet6' : 'inet'
}

/** RFC 1918 and RFC 4193. */
const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'].map((text) => parsePrefix(text))

function isPrivate(ip: Ip): boolean {
  return PRIVATE.some((prefix) => prefixContains(prefix, ip))
}

/** A key stands for one host: at another place it would take the other host's packets. */
function judge(
  lease: Lease,
  families: readonly Family[],
  own: WireguardKey,
  endsOf: (lease: Lease) => readonly PeerEnd[],
): Verdict {
  try {
    const ends = endsOf(lease)
    if (ends.length === 0) return { refused: families.map((family) => lack(family, lease)).join(', ') }
    if (ends.some(({ publicKey }) => publicKey === own)) return { refused: `PublicKey ${own} is our own` }
    const claims = ends.map(({ device, publicKey, endpoint, port }) => ({
      kind: device.link.name === NAMES.inet ? 'PublicKey' : 'IPv6 PublicKey',
      name: publicKey,
      value: `${endpoint} port ${port}`,
    }))
    return { claims }
  } catch (error) {
    if (error instanceof AddressError) return { refused: error.message }
    throw error
  }
}

function lack(family: Family, { subnets, publicIps }: Lease): string {
  const has = subnets[family] !== undefined && publicIps[family] !== undefined
  return `it has no ${has ? DATA[family] : `${FAMILY_NAMES[family]} subnet`}`
}

/** @throws {AddressError} unless the data has a key, and a port if it has one. */
function readData(
  family: Family,
  data: unknown,
): { readonly publicKey: WireguardKey; readonly port: number | undefined } {
  const { PublicKey: text, Port: port = 0 }: { readonly PublicKey?: unknown; readonly Port?: unknown } =
    typeof data === 'object' && data !== null ? data : {}
  if (typeof text !== 'string') {
    throw new AddressError(`${DATA[family]} ${JSON.stringify(data)} has no PublicKey`)
  }
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 0 || port > 65535) {
    throw new AddressError(`Port ${JSON.stringify(port)} is not a whole number from 0 to 65535`)
  }
  return { publicKey: readKey(text), port: port === 0 ? undefined : port }
}

/** @throws {AddressError} */
function readKey(text: string): WireguardKey {
  let key: WireguardKey
  try {
    key = parseKey(text)
  } catch {
    throw new AddressError(`PublicKey ${JSON.stringify(text)} is not 32 bytes in base64`)
  }
  if (key === NO_KEY) throw new AddressError(`PublicKey ${key} is nobody's`)
  return key
}
