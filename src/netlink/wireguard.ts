/**
 * WireGuard devices in the kernel (Linux 5.6): the generic family `wireguard`, version 1 (linux/wireguard.h).
 *
 * A device that does not fit one message is told in several, which {@link joinWireguard} puts together, and changed
 * with several.
 */

import { type Attribute, type Mutable, NLA_F_NESTED, POOL, Reader, type Writer } from './attribute.ts'
import { GENLMSGHDR, startGeneric } from './generic.ts'
import { NLM_F_DUMP, NLM_F_REQUEST, type Request } from './message.ts'
import type { WireguardDevice, WireguardPeer } from './wireguard-device.ts'
import { decodeKey, decodePeer, peerSize, putKey, putPeer } from './wireguard-peer.ts'

export const WIREGUARD = 'wireguard'

const WG_GENL_VERSION = 1
const WG_CMD_GET_DEVICE = 0
const WG_CMD_SET_DEVICE = 1

const WGDEVICE_A_IFINDEX = 1
const WGDEVICE_A_IFNAME = 2
const WGDEVICE_A_PRIVATE_KEY = 3
const WGDEVICE_A_PUBLIC_KEY = 4
const WGDEVICE_A_FLAGS = 5
const WGDEVICE_A_LISTEN_PORT = 6
const WGDEVICE_A_FWMARK = 7
const WGDEVICE_A_PEERS = 8

const WGDEVICE_F_REPLACE_PEERS = 1

/** Of peers in one change: their attribute has at most 64 KiB. */
const CHANGE_BYTES = 32 * 1024

/** One message of a dump, or one change. @throws {DecodeError} */
export function decodeWireguard(payload: Uint8Array): WireguardDevice {
  const reader = new Reader(payload, GENLMSGHDR)
  const unknown: Attribute[] = []
  const peers: WireguardPeer[] = []
  const device: Mutable<WireguardDevice> = { peers, unknown }
  while (reader.next()) {
    if (reader.type === WGDEVICE_A_PEERS) decodePeers(reader.nested(), peers)
    else if (!decodeAttribute(reader, device)) unknown.push(reader.attribute())
  }
  return device
}

function decodeAttribute(reader: Reader, device: Mutable<WireguardDevice>): boolean {
  switch (reader.type) {
    case WGDEVICE_A_IFINDEX:
      device.ifindex = reader.u32()
      return true
    case WGDEVICE_A_IFNAME:
      device.name = reader.text()
      return true
    case WGDEVICE_A_PRIVATE_KEY:
      device.privateKey = decodeKey(reader)
      return true
    case WGDEVICE_A_PUBLIC_KEY:
      device.publicKey = decodeKey(reader)
      return true
    case WGDEVICE_A_FLAGS:
      if ((reader.u32() & WGDEVICE_F_REPLACE_PEERS) !== 0) device.replacePeers = true
      return true
    case WGDEVICE_A_LISTEN_PORT:
      device.listenPort = reader.u16()
      return true
    case WGDEVICE_A_FWMARK:
      device.fwmark = reader.u32()
      return true
    default:
      return false
  }
}

function decodePeers(list: Reader, peers: WireguardPeer[]): void {
  while (list.next()) peers.push(decodePeer(list.nested()))
}

/**
 * The device that the messages of one dump tell. The device itself is told in the first of them; a peer whose allowed
 * IPs go on in the next message comes again there, with nothing but its public key and more of them.
 */
export function joinWireguard(parts: readonly WireguardDevice[]): WireguardDevice {
  const peers = new Map<string, WireguardPeer>()
  for (const peer of parts.flatMap((part) => part.peers)) {
    const begun = peers.get(peer.publicKey)
    peers.set(peer.publicKey, begun === undefined ? peer : continued(begun, peer))
  }
  const [first, ...others] = parts
  return others.reduce<WireguardDevice>(
    (device, { unknown = [], ...part }) => ({
      ...device,
      ...part,
      peers: device.peers,
      unknown: [...(device.unknown ?? []), ...unknown],
    }),
    { ...first, peers: [...peers.values()] },
  )
}

function continued(
  begun: WireguardPeer,
  { allowedIps, unknown = [], ...rest }: WireguardPeer,
): WireguardPeer {
  return {
    ...begun,
    ...rest,
    allowedIps: [...begun.allowedIps, ...allowedIps],
    unknown: [...(begun.unknown ?? []), ...unknown],
  }
}

/** @throws {RangeError} for peers that do not fit one message. */
export function encodeWireguard(device: Partial<WireguardDevice>, writer = POOL): Uint8Array {
  return encodeCommand(WG_CMD_SET_DEVICE, device, writer)
}

function encodeCommand(command: number, device: Partial<WireguardDevice>, writer: Writer): Uint8Array {
  const { peers = [], replacePeers } = device
  startGeneric(writer, { command, version: WG_GENL_VERSION })
  writer.putU32(WGDEVICE_A_IFINDEX, device.ifindex)
  writer.putText(WGDEVICE_A_IFNAME, device.name)
  putKey(writer, WGDEVICE_A_PRIVATE_KEY, device.privateKey)
  putKey(writer, WGDEVICE_A_PUBLIC_KEY, device.publicKey)
  writer.putU16(WGDEVICE_A_LISTEN_PORT, device.listenPort)
  writer.putU32(WGDEVICE_A_FWMARK, device.fwmark)
  writer.putU32(WGDEVICE_A_FLAGS, replacePeers === true ? WGDEVICE_F_REPLACE_PEERS : undefined)
  if (peers.length > 0) writer.nest(WGDEVICE_A_PEERS | NLA_F_NESTED, () => putPeers(peers, writer))
  writer.putAll(device.unknown)
  return writer.finish()
}

/** The kernel does not look at the types of a list's members. */
function putPeers(peers: readonly WireguardPeer[], writer: Writer): void {
  for (const peer of peers) writer.nest(NLA_F_NESTED, () => putPeer(peer, writer))
}

/** Index or name of a device: the kernel takes one of them, not both. */
export type WireguardLink = { readonly ifindex: number } | { readonly name: string }

/**
 * A dump of one device: ENODEV when there is no such link, EOPNOTSUPP when it is another kind of link.
 *
 * @param family The number of the family {@link WIREGUARD}.
 */
export function getWireguard(family: number, link: WireguardLink): Request {
  return {
    type: family,
    flags: NLM_F_REQUEST | NLM_F_DUMP,
    payload: encodeCommand(WG_CMD_GET_DEVICE, selected(link), POOL),
    operation: `WG_CMD_GET_DEVICE ${linkName(link)}`,
  }
}

/**
 * A change of one device, in as many requests as its peers take. They are to be carried out in their order, and
 * before the last of them the device has not all of its peers.
 *
 * @param family The number of the family {@link WIREGUARD}.
 * @throws {RangeError} for a peer whose allowed IPs do not fit one message: those of more than about 1,500.
 */
export function setWireguard(
  family: number,
  link: WireguardLink,
  change: Omit<Partial<WireguardDevice>, 'ifindex' | 'name' | 'publicKey'>,
): Request[] {
  const { peers = [], ...device } = change
  const [first = [], ...others] = portions(peers)
  const requests = [{ ...device, peers: first }, ...others.map((portion) => ({ peers: portion }))]
  return requests.map((part) => ({
    type: family,
    flags: NLM_F_REQUEST,
    payload: encodeWireguard({ ...part, ...selected(link) }),
    operation: `WG_CMD_SET_DEVICE ${linkName(link)}`,
  }))
}

function selected(link: WireguardLink): WireguardLink {
  return 'ifindex' in link ? { ifindex: link.ifindex } : { name: link.name }
}

function linkName(link: WireguardLink): string {
  return 'ifindex' in link ? `of link ${link.ifindex}` : link.name
}

function* portions(peers: readonly WireguardPeer[]): Generator<WireguardPeer[]> {
  let portion: WireguardPeer[] = []
  let bytes = 0
  for (const peer of peers) {
    const size = peerSize(peer)
    if (portion.length > 0 && bytes + size > CHANGE_BYTES) {
      yield portion
      portion = []
      bytes = 0
    }
    portion.push(peer)
    bytes += size
  }
  if (portion.length > 0) yield portion
}
