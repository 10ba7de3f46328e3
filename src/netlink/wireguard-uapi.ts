/**
 * The text protocol of a process that stands in for the kernel's WireGuard, such as wireguard-go
 * (https://www.wireguard.com/xplatform/#configuration-protocol): the same values as in `wireguard.ts`.
 *
 * Lines `key=value`; an empty one ends a message. A request begins with `get=1` or `set=1`, an answer ends with
 * `errno=`. A line `public_key` begins a peer, which the lines behind it describe. Keys are in hex, numbers decimal.
 */

import { ipFamily, parseIp } from '../address/ip.ts'
import { parsePrefix } from '../address/prefix.ts'
import { DecodeError, type Mutable } from './attribute.ts'
import { formatKey, keyBytes, type WireguardKey } from '../address/key.ts'
import type { Endpoint, WireguardDevice, WireguardPeer } from './wireguard-device.ts'

const U16 = 0xffff
const U32 = 0xffffffff
const U64 = 0xffff_ffff_ffff_ffffn

export const UAPI_GET = 'get=1\n\n'

/** The end of an answer. */
export const UAPI_END = /(?:^|\n)errno=-?\d+\n\n$/

export interface UapiAnswer {
  /** Positive, as in errno(3); 0: done. */
  readonly errno: number
  /** Of an answer to `get=1`. Without name and index, which the protocol does not tell. */
  readonly device: WireguardDevice
}

/** A change of the device. @throws {RangeError} for a zone that a line cannot hold. */
export function encodeUapiSet(change: Partial<WireguardDevice>): string {
  const lines = [
    'set=1',
    line('private_key', hex(change.privateKey)),
    line('listen_port', change.listenPort),
    line('fwmark', change.fwmark),
    flag('replace_peers', change.replacePeers),
    ...(change.peers ?? []).flatMap(peerLines),
  ]
  return `${lines.filter((text) => text !== undefined).join('\n')}\n\n`
}

/** `update_only` goes first, since the lines are carried out one after the other. */
function peerLines(peer: WireguardPeer): (string | undefined)[] {
  return [
    line('public_key', hex(peer.publicKey)),
    flag('update_only', peer.updateOnly),
    flag('remove', peer.remove),
    line('preshared_key', hex(peer.presharedKey)),
    line('endpoint', peer.endpoint === undefined ? undefined : formatEndpoint(peer.endpoint)),
    line('persistent_keepalive_interval', peer.persistentKeepalive),
    flag('replace_allowed_ips', peer.replaceAllowedIps),
    ...peer.allowedIps.map((prefix) => line('allowed_ip', prefix)),
  ]
}

function line(key: string, value: string | number | undefined): string | undefined {
  return value === undefined ? undefined : `${key}=${value}`
}

function flag(key: string, value: boolean | undefined): string | undefined {
  return value === true ? `${key}=true` : undefined
}

function hex(key: WireguardKey | undefined): string | undefined {
  return key === undefined ? undefined : Buffer.from(keyBytes(key)).toString('hex')
}

function formatEndpoint({ address, port, zone }: Endpoint): string {
  if (ipFamily(address) === 'inet') return `${address}:${port}`
  if (zone === undefined) return `[${address}]:${port}`
  if (!/^[^\s\]%]+$/.test(zone))
    throw new RangeError(`zone ${JSON.stringify(zone)} of ${address}: the name of a link`)
  return `[${address}%${zone}]:${port}`
}

/**
 * Keys that it does not know are left out, as the protocol asks.
 *
 * @param text One answer, to its end.
 * @throws {DecodeError} with its place in the text.
 */
export function decodeUapiAnswer(text: string): UapiAnswer {
  const peers: MutablePeer[] = []
  const device: Mutable<WireguardDevice> = { peers }
  for (const entry of entries(text)) {
    if (entry.key === 'errno') return { errno: Math.abs(Number(integer(entry))), device }
    const peer = peers.at(-1)
    if (entry.key === 'public_key') peers.push({ publicKey: key(entry), allowedIps: [] })
    else if (peer === undefined) decodeDeviceLine(entry, device)
    else if (!decodeSetting(entry, peer)) decodeReport(entry, peer)
  }
  throw new DecodeError(text.length, 'no errno at the end of the answer')
}

interface MutablePeer extends Mutable<Omit<WireguardPeer, 'allowedIps'>> {
  readonly allowedIps: WireguardPeer['allowedIps'][number][]
}

function decodeDeviceLine(entry: Entry, device: Mutable<WireguardDevice>): void {
  switch (entry.key) {
    case 'private_key':
      device.privateKey = key(entry)
      return
    case 'listen_port':
      device.listenPort = number(entry, U16)
      return
    case 'fwmark':
      device.fwmark = number(entry, U32)
      return
    case 'replace_peers':
      device.replacePeers = true
      return
    default:
  }
}

function decodeSetting(entry: Entry, peer: MutablePeer): boolean {
  switch (entry.key) {
    case 'preshared_key':
      peer.presharedKey = key(entry)
      return true
    case 'endpoint':
      peer.endpoint = endpoint(entry)
      return true
    case 'persistent_keepalive_interval':
      peer.persistentKeepalive = number(entry, U16)
      return true
    case 'allowed_ip':
      peer.allowedIps.push(parsed(entry, 'a prefix', parsePrefix))
      return true
    case 'remove':
      peer.remove = true
      return true
    case 'update_only':
      peer.updateOnly = true
      return true
    case 'replace_allowed_ips':
      peer.replaceAllowedIps = true
      return true
    default:
      return false
  }
}

function decodeReport(entry: Entry, peer: MutablePeer): void {
  switch (entry.key) {
    case 'last_handshake_time_sec':
      peer.lastHandshake = (peer.lastHandshake ?? 0n) + integer(entry) * 1_000_000_000n
      return
    case 'last_handshake_time_nsec':
      peer.lastHandshake = (peer.lastHandshake ?? 0n) + integer(entry)
      return
    case 'rx_bytes':
      peer.rxBytes = bytes(entry)
      return
    case 'tx_bytes':
      peer.txBytes = bytes(entry)
      return
    case 'protocol_version':
      peer.protocolVersion = number(entry, U32)
      return
    default:
  }
}

/** A line. Errors do not repeat its value, since it may be a secret. */
interface Entry {
  readonly key: string
  readonly value: string
  /** Where it begins in the text. */
  readonly at: number
}

function* entries(text: string): Generator<Entry> {
  let at = 0
  for (const written of text.split('\n')) {
    // An empty line is the end.
    if (written === '') return
    const equals = written.indexOf('=')
    if (equals < 0) throw new DecodeError(at, 'a line without "="')
    yield { key: written.slice(0, equals), value: written.slice(equals + 1), at }
    at += written.length + 1
  }
}

function number(entry: Entry, max: number): number {
  const value = integer(entry)
  if (value < 0n || value > max) throw unlike(entry, `a number from 0 to ${max}`)
  return Number(value)
}

function bytes(entry: Entry): bigint {
  const value = integer(entry)
  if (value < 0n || value > U64) throw unlike(entry, `a number from 0 to ${U64}`)
  return value
}

/** At most 20 digits: those of 64 bits. */
function integer(entry: Entry): bigint {
  if (!/^-?\d{1,20}$/.test(entry.value)) throw unlike(entry, 'a decimal number')
  return BigInt(entry.value)
}

function key(entry: Entry): WireguardKey {
  if (!/^[0-9a-fA-F]{64}$/.test(entry.value)) throw unlike(entry, 'a key of 64 hexadecimal digits')
  return formatKey(Buffer.from(entry.value, 'hex'))
}

/** `192.0.2.1:51820`, `[2001:db8::1]:51820`, `[fe80::1%eth0]:51820` */
function endpoint(entry: Entry): Endpoint {
  const wanted = 'an address and a port'
  const [, inet, inet6, zone, port] =
    /^(?:([\d.]+)|\[([^\]%]+)(?:%([^\s\]%]+))?\]):(\d{1,5})$/.exec(entry.value) ?? []
  if (port === undefined) throw unlike(entry, wanted)
  const address = parsed({ ...entry, value: inet ?? inet6 ?? '' }, wanted, parseIp)
  if ((ipFamily(address) === 'inet') !== (inet !== undefined)) throw unlike(entry, wanted)
  const found = { address, port: number({ ...entry, value: port }, U16) }
  return zone === undefined ? found : { ...found, zone }
}

function parsed<T>(entry: Entry, wanted: string, parse: (text: string) => T): T {
  try {
    return parse(entry.value)
  } catch {
    throw unlike(entry, wanted)
  }
}

function unlike({ key, at }: Entry, wanted: string): DecodeError {
  return new DecodeError(at, `${key} is not ${wanted}`)
}
