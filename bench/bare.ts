/**
 * Bare Node: the least that any program on Node takes for what an agent does at a start, which shows what part of one is
 * Node itself. It asks etcd for all leases at once, and sends the operations of `floor.c` for each, while it reads the
 * next. It claims no lease, judges nothing, looks at nothing in the kernel and says nothing; its link is there already.
 *
 *   bare static|l3miss LINK bare|remembering -etcd-endpoints=URL -etcd-prefix=PREFIX -public-ip=IP
 *
 * LINK is an index. Like an agent it stays connected to etcd until a signal ends it.
 *
 * One that remembers is the least that any agent on Node takes: it holds what each must have at hand to judge the next
 * lease, to see drift, and to take back what a lease brought: each lease by its key, subnet and MAC, and each of its
 * entries in the kernel.
 */

import { type ClientHttp2Stream, connect } from 'node:http2'
import { openNetlink, type Socket } from '../src/native.ts'
import { LINK } from './network.ts'

const NLMSG_HEADER = 16
const NLM_F_REQUEST = 0x1
const NLM_F_ACK = 0x4
const NLM_F_REPLACE = 0x100
const NLM_F_EXCL = 0x200
const NLM_F_CREATE = 0x400

const RTM_NEWROUTE = 24
const RTM_NEWNEIGH = 28
const RTM_NEWNEXTHOP = 104

const AF_INET = 2
const AF_BRIDGE = 7
const NUD_PERMANENT = 0x80
const NTF_SELF = 0x02
const NDA_DST = 1
const NDA_LLADDR = 2
const NHA_ID = 1
const NHA_OIF = 5
const NHA_GATEWAY = 6
const RTNH_F_ONLINK = 0x04
const RT_TABLE_MAIN = 254
const RTN_UNICAST = 1
const RTA_DST = 1
const RTA_NH_ID = 30

/** tweed's protocol number, and the first id of its nexthops. */
const PROTOCOL = 84
const FIRST_NEXTHOP = PROTOCOL * 2 ** 24
const SUBNET_LENGTH = 24

/** Of one datagram: the one or four of so many leases. */
const MESSAGES = 1000
/** Words of 4 bytes. */
const LONGEST_MESSAGE = 12
/** An acknowledgement takes about 1 KiB of it. */
const ANSWER_BUFFER = 64 * 1024
const ANSWER_SLOT = 256

/** Bytes under way: etcd is never to wait for the window to be opened again. */
const WINDOW = 2 ** 30
/** MB that a session may hold: all leases, while the kernel works on the first. */
const SESSION_MEMORY = 1024

const GRPC_PREFIX = 5
/** Of a field that is its length and so many bytes. The tags of etcd's messages are of such fields, by number. */
const BYTES = 2
const RANGE_KEY = (1 << 3) | BYTES
const RANGE_END = (2 << 3) | BYTES
const RANGE_KVS = (2 << 3) | BYTES
const KV_KEY = (1 << 3) | BYTES
const KV_VALUE = (5 << 3) | BYTES

interface LeaseValue {
  readonly PublicIP: string
  readonly BackendData: { readonly VtepMAC: string }
}

/** What an agent has at hand of its network, in objects and maps: what its lease says, and what it needs in the kernel. */
class Memory {
  readonly #byKey = new Map<string, object>()
  readonly #bySubnet = new Map<string, object>()
  readonly #byMac = new Map<string, object>()
  readonly #fdb = new Map<string, object>()
  readonly #neighbours = new Map<string, object>()
  readonly #nexthops = new Map<number, object>()
  readonly #routes = new Map<string, object>()

  add(name: string, text: string, { PublicIP, BackendData }: LeaseValue, nexthop: number | undefined): void {
    const ip = name.slice(0, name.indexOf('-'))
    const subnet = [ip, SUBNET_LENGTH].join('/')
    const mac = BackendData.VtepMAC
    const lease = {
      name,
      text,
      created: 0,
      expires: 0,
      subnet,
      publicIp: PublicIP,
      type: 'vxlan',
      data: BackendData,
    }
    this.#byKey.set(name, lease)
    if (!this.#bySubnet.has(subnet)) this.#bySubnet.set(subnet, lease)
    if (!this.#byMac.has(mac)) this.#byMac.set(mac, lease)
    this.#fdb.set(mac, both({ link: LINK, mac, destination: PublicIP }))
    if (nexthop === undefined) return
    this.#neighbours.set(ip, both({ link: LINK, ip, mac, state: NUD_PERMANENT }))
    this.#nexthops.set(nexthop, both({ link: LINK, id: nexthop, gateway: ip }))
    this.#routes.set(subnet, both({ link: LINK, subnet, gateway: ip, nexthop, protocol: PROTOCOL }))
  }
}

/** An entry as it is desired, and as it is. */
function both(desired: object): object {
  return { desired, actual: undefined }
}

/** Pairs of key and value out of a RangeResponse that comes in chunks. */
class Pairs {
  #bytes = Buffer.alloc(0)
  #at = GRPC_PREFIX

  add(chunk: Buffer): void {
    const used = Math.min(this.#at, this.#bytes.length)
    this.#bytes = Buffer.concat([this.#bytes.subarray(used), chunk])
    this.#at -= used
  }

  /** The next one; undefined when not all of it is there yet. */
  next(): { readonly key: string; readonly value: string } | undefined {
    for (;;) {
      const start = this.#at
      const tag = this.#varint()
      const length = this.#varint()
      const end = (tag & 7) === BYTES ? this.#at + length : this.#at
      if (end > this.#bytes.length) {
        this.#at = start
        return undefined
      }
      if (tag === RANGE_KVS) return this.#pair(end)
      this.#at = end
    }
  }

  #pair(end: number): { readonly key: string; readonly value: string } {
    let key = ''
    let value = ''
    while (this.#at < end) {
      const tag = this.#varint()
      const length = this.#varint()
      if (tag === KV_KEY) key = this.#text(length)
      else if (tag === KV_VALUE) value = this.#text(length)
    }
    return { key, value }
  }

  /** Not exact beyond 2^53: the ids of etcd's leases are, which are skipped. */
  #varint(): number {
    let value = 0
    for (let weight = 1; ; weight *= 128) {
      const byte = this.#bytes[this.#at++] ?? 0
      value += (byte & 127) * weight
      if (byte < 128) return value
    }
  }

  #text(length: number): string {
    const start = this.#at
    this.#at += length
    return this.#bytes.toString('utf8', start, this.#at)
  }
}

/** Netlink messages in words, which are little endian wherever this runs; addresses are words as they lie in memory. */
class Datagram {
  readonly #words = new Int32Array(MESSAGES * LONGEST_MESSAGE)
  #length = 0
  #last = 0
  #count = 0

  /** Of messages. */
  get count(): number {
    return this.#count
  }

  /** All messages, the last one with a wish for an acknowledgement; in memory that the next ones will overwrite. */
  take(): Uint8Array {
    this.#words[this.#last + 1] = (this.#words[this.#last + 1] ?? 0) | (NLM_F_ACK << 16)
    const bytes = new Uint8Array(this.#words.buffer, 0, 4 * this.#length)
    this.#length = 0
    this.#count = 0
    return bytes
  }

  /** Of the FDB, or of the neighbours. */
  addNeighbour(family: number, link: number, flags: number, ip: number, mac: string): void {
    this.#begin(12, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE)
    this.#put(family)
    this.#put(link)
    this.#put(NUD_PERMANENT | (flags << 16))
    this.#putWord(NDA_DST, ip)
    this.#put(10 | (NDA_LLADDR << 16))
    this.#put(byteAt(mac, 0) | (byteAt(mac, 1) << 8) | (byteAt(mac, 2) << 16) | (byteAt(mac, 3) << 24))
    this.#put(byteAt(mac, 4) | (byteAt(mac, 5) << 8))
  }

  addNexthop(id: number, link: number, gateway: number): void {
    this.#begin(12, RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_EXCL)
    this.#put(AF_INET | (PROTOCOL << 16))
    this.#put(RTNH_F_ONLINK)
    this.#putWord(NHA_ID, id)
    this.#putWord(NHA_GATEWAY, gateway)
    this.#putWord(NHA_OIF, link)
  }

  addRoute(subnet: number, nexthop: number): void {
    this.#begin(11, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)
    this.#put(AF_INET | (SUBNET_LENGTH << 8))
    this.#put(RT_TABLE_MAIN | (PROTOCOL << 8) | (RTN_UNICAST << 24))
    this.#put(0)
    this.#putWord(RTA_DST, subnet)
    this.#putWord(RTA_NH_ID, nexthop)
  }

  /** @param length In words. */
  #begin(length: number, type: number, flags: number): void {
    this.#last = this.#length
    this.#count++
    this.#put(4 * length)
    this.#put(type | ((NLM_F_REQUEST | flags) << 16))
    this.#put(0)
    this.#put(0)
  }

  #putWord(attribute: number, value: number): void {
    this.#put(8 | (attribute << 16))
    this.#put(value)
  }

  #put(word: number): void {
    this.#words[this.#length++] = word
  }
}

/** Byte i of a MAC in lower case. */
function byteAt(mac: string, i: number): number {
  return (digit(mac.charCodeAt(3 * i)) << 4) | digit(mac.charCodeAt(3 * i + 1))
}

function digit(code: number): number {
  return code >= 97 ? code - 87 : code - 48
}

/** An IPv4 address as it lies in memory. */
function ipWord(text: string): number {
  let word = 0
  let byte = 0
  let shift = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 46) {
      word |= byte << shift
      byte = 0
      shift += 8
    } else byte = 10 * byte + code - 48
  }
  return word | (byte << shift)
}

/** The bytes are copied before it returns. @throws when the kernel refused a message. */
async function send(kernel: Socket, bytes: Uint8Array): Promise<void> {
  await kernel.deliver(bytes)
  const answer = new Uint8Array(ANSWER_SLOT)
  kernel.receive(answer, ANSWER_SLOT, new Uint32Array(1), 0)
  const error = new DataView(answer.buffer).getInt32(NLMSG_HEADER, true)
  if (error !== 0) throw new Error(`the kernel says ${error}`)
}

/** A gRPC message: all keys that begin with the text. */
function rangeRequest(from: string): Buffer {
  const to = from.slice(0, -1) + String.fromCharCode(from.charCodeAt(from.length - 1) + 1)
  const fields = [RANGE_KEY, from.length, ...Buffer.from(from), RANGE_END, to.length, ...Buffer.from(to)]
  return Buffer.from([0, 0, 0, 0, fields.length, ...fields])
}

function ask(url: string, request: Buffer): ClientHttp2Stream {
  const session = connect(url, {
    maxSessionMemory: SESSION_MEMORY,
    settings: { enablePush: false, initialWindowSize: WINDOW },
  })
  session.on('connect', () => session.setLocalWindowSize(WINDOW))
  const stream = session.request({
    ':method': 'POST',
    ':path': '/etcdserverpb.KV/Range',
    'content-type': 'application/grpc',
    te: 'trailers',
  })
  return stream.end(request)
}

async function main([mode, link = '', memory, ...flags]: readonly string[]): Promise<void> {
  const flag = (name: string): string =>
    flags.find((word) => word.startsWith(`${name}=`))?.split('=')[1] ?? ''
  const subnets = `${flag('-etcd-prefix')}/subnets/`
  const answer = ask(flag('-etcd-endpoints'), rangeRequest(subnets))
  const kernel = openNetlink({ receiveBuffer: ANSWER_BUFFER })
  const index = Number(link)
  const own = flag('-public-ip')
  const pairs = new Pairs()
  const leases = new Map<string, LeaseValue>()
  const remembered = memory === 'remembering' ? new Memory() : undefined
  const datagram = new Datagram()
  let sent: Promise<void> | undefined
  let nexthop = FIRST_NEXTHOP
  for await (const chunk of answer) {
    pairs.add(chunk)
    for (let pair = pairs.next(); pair !== undefined; pair = pairs.next()) {
      const lease = JSON.parse(pair.value) as LeaseValue
      if (remembered === undefined) leases.set(pair.key, lease)
      // The lease of this host, which tweed has left behind.
      if (lease.PublicIP === own) continue
      const id = mode === 'static' ? nexthop : undefined
      remembered?.add(pair.key.slice(subnets.length), pair.value, lease, id)
      const mac = lease.BackendData.VtepMAC
      datagram.addNeighbour(AF_BRIDGE, index, NTF_SELF, ipWord(lease.PublicIP), mac)
      if (mode === 'static') {
        const subnet = ipWord(pair.key.slice(subnets.length, pair.key.indexOf('-', subnets.length)))
        datagram.addNeighbour(AF_INET, index, 0, subnet, mac)
        datagram.addNexthop(nexthop, index, subnet)
        datagram.addRoute(subnet, nexthop++)
      }
      if (datagram.count < MESSAGES) continue
      await sent
      sent = send(kernel, datagram.take())
    }
  }
  await sent
  if (datagram.count > 0) await send(kernel, datagram.take())
}

void main(process.argv.slice(2))
