/**
 * The floor of an L3 miss on Node: what `answer.c` does, with the addon, the flags and the event loop of tweed and nothing else.
 * It knows no lease, and looks at no other message of the kernel's.
 *
 *   bare-answer LINK MAC
 *
 * Runs in the network namespace of a host. Says `ready`; then gives every IPv4 address that the kernel looks for on the link a
 * permanent neighbour with the MAC, until a signal ends it.
 */

import type { Ip } from '../src/address/ip.ts'
import { parseMac } from '../src/address/mac.ts'
import { openNetlink } from '../src/native.ts'
import { Connection } from '../src/netlink/connection.ts'
import { decodeLink, getLink } from '../src/netlink/link.ts'
import { encodeMessage, NLM_F_CREATE, NLM_F_REPLACE } from '../src/netlink/message.ts'
import { newNeighbour, NUD_PERMANENT } from '../src/netlink/neighbour.ts'
import { AF_INET, RTM_GETNEIGH, RTNLGRP_NEIGH } from '../src/netlink/rtnetlink.ts'

const NLMSG_HEADER = 16
const NDMSG = 12
const ATTRIBUTE_HEADER = 4
const NDA_DST = 1

const RECEIVE_BUFFER = 1024 * 1024
const SLOT = 4096
const SLOTS = 16

/** Where the IP of an answer is: its attribute is the first. */
const IP = NLMSG_HEADER + NDMSG + ATTRIBUTE_HEADER

async function indexOf(link: string): Promise<number> {
  using connection = Connection.open()
  return decodeLink((await connection.get(getLink(link))).payload).index
}

/** A datagram; its IP is still to be put. */
function answerOf(ifindex: number, mac: string): Uint8Array {
  const destination = '0.0.0.0' as Ip
  const neighbour = { family: AF_INET, ifindex, destination, mac: parseMac(mac), state: NUD_PERMANENT }
  return encodeMessage(newNeighbour(neighbour, NLM_F_CREATE | NLM_F_REPLACE), 0)
}

async function main([link = '', mac = '']: readonly string[]): Promise<void> {
  const index = await indexOf(link)
  const answer = answerOf(index, mac)
  const heard = openNetlink({ groups: [RTNLGRP_NEIGH], receiveBuffer: RECEIVE_BUFFER })
  const told = openNetlink({ receiveBuffer: RECEIVE_BUFFER })
  const slots = Buffer.alloc(SLOTS * SLOT)
  const lengths = new Uint32Array(SLOTS)

  /** Where in the slots the address is that the kernel looks for on the link; undefined for any other message. */
  const missed = (start: number, end: number): number | undefined => {
    if (slots.readUInt16LE(start + 4) !== RTM_GETNEIGH) return undefined
    const neighbour = start + NLMSG_HEADER
    if (slots.readUInt8(neighbour) !== AF_INET || slots.readInt32LE(neighbour + 4) !== index) return undefined
    for (let at = neighbour + NDMSG; at < end; at += (slots.readUInt16LE(at) + 3) & ~3) {
      if (slots.readUInt16LE(at + 2) === NDA_DST) return at + ATTRIBUTE_HEADER
    }
    return undefined
  }

  process.stdout.write('ready\n')
  while (await heard.readable()) {
    const count = heard.receive(slots, SLOT, lengths, 0)
    if (count === 'overrun') throw new Error('the receive buffer overran')
    for (let i = 0; i < count; i++) {
      const ip = missed(i * SLOT, i * SLOT + (lengths[i] ?? 0))
      if (ip === undefined) continue
      slots.copy(answer, IP, ip, ip + 4)
      told.send(answer)
    }
  }
}

void main(process.argv.slice(2))
