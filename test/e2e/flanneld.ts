/**
 * What flanneld does on a host, by hand, with the commands that one would type. Its vxlan backend in three generations:
 *
 * - `0.5`: the whole network lies behind flannel.1, by its address 10.10.10.0/16. FDB entries come from the leases, and
 *   the agent answers the kernel's L3 misses, each for about half a minute.
 * - `0.8`: the same with the address 10.10.10.0/32 and a route for the network.
 * - `0.9`, which it still is today: a route, a neighbour and an FDB entry for each peer. The iptables rules are today's.
 *
 * A start over a state that is there adopts it, as flanneld does. (Not so 0.7 and before: they began with taking every
 * address off the link, and with the last one the kernel takes every route and neighbour.)
 */

import { writeFile } from 'node:fs/promises'
import type { Ip } from '../../src/address/ip.ts'
import { type Mac, parseMac } from '../../src/address/mac.ts'
import { type Prefix, prefixBase, prefixContains } from '../../src/address/prefix.ts'
import { writeSysctl } from '../../src/lab/build.ts'
import { bridge, ip, ipBatch, run } from '../../src/lab/command.ts'
import { containerAddresses, type LabHost } from '../../src/lab/topology.ts'
import { Connection, Subscription } from '../../src/netlink/connection.ts'
import { decodeLink, getLink } from '../../src/netlink/link.ts'
import { NLM_F_CREATE, NLM_F_REPLACE } from '../../src/netlink/message.ts'
import {
  decodeNeighbour,
  newNeighbour,
  NUD_DELAY,
  NUD_INCOMPLETE,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
} from '../../src/netlink/neighbour.ts'
import { AF_INET, RTM_GETNEIGH, RTM_NEWNEIGH, RTNLGRP_NEIGH } from '../../src/netlink/rtnetlink.ts'

export const GENERATIONS = ['0.5', '0.8', '0.9'] as const
export type Generation = (typeof GENERATIONS)[number]

/** What a host says of itself in its lease. */
export interface Peer {
  readonly subnet: Prefix
  readonly publicIp: Ip
  readonly mac: Mac
}

const NETWORK = '10.10.0.0/16'

/** A host of the lab with the MAC that flanneld's link has there. */
export function peerOf({ subnet, publicIp }: LabHost): Peer {
  const last = Number(publicIp.split('.').at(-1))
  return { subnet, publicIp, mac: parseMac(`6e:f7:a4:d8:2b:${last.toString(16).padStart(2, '0')}`) }
}

/** The registry's entry of such a host: key and value. Before 0.9 nobody said the VNI. */
export function flannelLease({ subnet, publicIp, mac }: Peer, generation: Generation): [string, string] {
  const value =
    generation === '0.9'
      ? `{"PublicIP":"${publicIp}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${mac}"}}`
      : `{"PublicIP":"${publicIp}","BackendType":"vxlan","BackendData":{"VtepMAC":"${mac}"}}`
  return [subnet.replace('/', '-'), value]
}

export class Flanneld implements AsyncDisposable {
  readonly #misses: MissResponder | undefined

  private constructor(misses: MissResponder | undefined) {
    this.#misses = misses
  }

  static async start(host: LabHost, generation: Generation, peers: readonly Peer[]): Promise<Flanneld> {
    await configureLink(host, generation)
    if (generation === '0.9') {
      await addPeers(host, peers)
      await addRules(host)
    } else await routeNetwork(host, peers)
    const { gateway } = containerAddresses(host.subnet)
    await writeFile(
      host.subnetFile,
      `FLANNEL_NETWORK=${NETWORK}\nFLANNEL_SUBNET=${gateway}/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n`,
    )
    return new Flanneld(generation === '0.9' ? undefined : await MissResponder.start(host, peers))
  }

  /** Leaves the data plane as it is. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#misses?.stop()
  }
}

/** A link that is there is kept. */
async function configureLink(host: LabHost, generation: Generation): Promise<void> {
  const { namespace, publicIp, subnet } = host
  if (!/^\d+: flannel\.1:/m.test(await ip(namespace, '-o link show type vxlan'))) {
    const link = `link add flannel.1 address ${peerOf(host).mac} mtu 1450 txqueuelen 0`
    const vxlan = `type vxlan id 1 local ${publicIp} dev eth0 dstport 8472 nolearning`
    await ip(namespace, `${link} ${vxlan}`)
  }
  await ipBatch(namespace, [
    `address replace ${prefixBase(subnet)}/${generation === '0.5' ? 16 : 32} dev flannel.1`,
    'link set flannel.1 up',
  ])
}

/** 0.9: three entries for each lease, in this order. */
async function addPeers({ namespace }: LabHost, peers: readonly Peer[]): Promise<void> {
  for (const { subnet, publicIp, mac } of peers) {
    const base = prefixBase(subnet)
    await ip(namespace, `neigh replace ${base} lladdr ${mac} dev flannel.1 nud permanent`)
    await bridge(namespace, `fdb replace ${mac} dev flannel.1 dst ${publicIp} self permanent`)
    await ip(namespace, `route replace ${subnet} via ${base} dev flannel.1 onlink`)
  }
}

/** What --ip-masq and --iptables-forward-rules bring. Chains are written anew, jumps only if they are missing. */
async function addRules({ path, subnet }: LabHost): Promise<void> {
  const inside = (program: string, args: readonly string[], input = ''): Promise<string> =>
    run('nsenter', [`--net=${path}`, program, ...args], input)
  const saved = await inside('iptables-save', [])
  const jumps = (rule: string): string => (saved.includes(`${rule}\n`) ? '' : `${rule}\n`)
  const masq = '-m comment --comment "flanneld masq"'
  const forward = '-m comment --comment "flanneld forward"'
  const rules = `*nat
:FLANNEL-POSTRTG - [0:0]
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 ${masq} -j RETURN
-A FLANNEL-POSTRTG -s ${subnet} -d ${NETWORK} ${masq} -j RETURN
-A FLANNEL-POSTRTG -s ${NETWORK} -d ${subnet} ${masq} -j RETURN
-A FLANNEL-POSTRTG ! -s ${NETWORK} -d ${subnet} ${masq} -j RETURN
-A FLANNEL-POSTRTG -s ${NETWORK} ! -d 224.0.0.0/4 ${masq} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s ${NETWORK} -d ${NETWORK} ${masq} -j MASQUERADE --random-fully
${jumps(`-A POSTROUTING ${masq} -j FLANNEL-POSTRTG`)}COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FLANNEL-FWD -s ${NETWORK} ${forward} -j ACCEPT
-A FLANNEL-FWD -d ${NETWORK} ${forward} -j ACCEPT
${jumps(`-A FORWARD ${forward} -j FLANNEL-FWD`)}COMMIT
`
  await inside('iptables-restore', ['--noflush', '--wait'], rules)
}

/** 0.5 and 0.8: a route for the network, which the address of 0.5 has brought with it, and an FDB entry for each lease. */
async function routeNetwork(host: LabHost, peers: readonly Peer[]): Promise<void> {
  const { namespace } = host
  await writeSysctl(host, 'net/ipv4/neigh/flannel.1/app_solicit', '3')
  if ((await ip(namespace, `route show ${NETWORK}`)) === '') {
    await ip(namespace, `route add ${NETWORK} dev flannel.1 scope global`)
  }
  for (const { publicIp, mac } of peers) {
    await bridge(namespace, `fdb replace ${mac} dev flannel.1 dst ${publicIp} self permanent`)
  }
}

const ASKING = NUD_INCOMPLETE | NUD_STALE | NUD_DELAY | NUD_PROBE

/** 0.5 and 0.8: the kernel asks for the neighbour of a container, the answer is the MAC of that container's host. */
class MissResponder {
  readonly #connection: Connection
  readonly #subscription: Subscription
  readonly #answering: Promise<void>

  private constructor({ path: netns }: LabHost, index: number, peers: readonly Peer[]) {
    this.#connection = Connection.open({ netns })
    this.#subscription = Subscription.open({ netns, groups: [RTNLGRP_NEIGH] })
    this.#answering = this.#answer(index, peers)
  }

  static async start(host: LabHost, peers: readonly Peer[]): Promise<MissResponder> {
    using connection = Connection.open({ netns: host.path })
    const { index } = decodeLink((await connection.get(getLink('flannel.1'))).payload)
    return new MissResponder(host, index, peers)
  }

  async stop(): Promise<void> {
    this.#subscription.close()
    await this.#answering
    this.#connection.close()
  }

  async #answer(index: number, peers: readonly Peer[]): Promise<void> {
    for await (const event of this.#subscription) {
      for (const { type, payload } of event.kind === 'messages' ? event.messages : []) {
        if (type !== RTM_GETNEIGH && type !== RTM_NEWNEIGH) continue
        const { family, ifindex, state, destination } = decodeNeighbour(payload)
        if (family !== AF_INET || ifindex !== index || (state & ASKING) === 0) continue
        if (destination === undefined) continue
        const mac = peers.find(({ subnet }) => prefixContains(subnet, destination))?.mac
        if (mac === undefined) continue
        const answer = { family, ifindex, destination, mac, state: NUD_REACHABLE }
        await this.#connection.request(newNeighbour(answer, NLM_F_CREATE | NLM_F_REPLACE))
      }
    }
  }
}
