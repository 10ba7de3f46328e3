/**
 * The floor of an L3 miss on Node: what `answer.c` does, with the addon, the flags and the event loop of tweed and nothing else.
 * It knows no lease, and looks at no other message of the kernel's.
 *
 *   bare-answer LINK MAC
 *
 * LINK is an index. Says `ready`; then gives every IPv4 address that the kernel looks for on the link a permanent neighbour
 * with the MAC, until a signal ends it.
 */

import { openNetlink } from '../src/native.ts'

const NLMSG_HEADER = 16
const NDMSG = 12
const ATTRIBUTE_HEADER = 4

const RTM_NEWNEIGH = 28
const RTM_GETNEIGH = 30
const RTNLGRP_NEIGH = 3
/** NLM_F_REQUEST | NLM_F_REPLACE | NLM_F_CREATE */
const FLAGS = 0x501
const AF_INET = 2
const NUD_PERMANENT = 0x80
const NDA_DST = 1
const NDA_LLADDR = 2

const RECEIVE_BUFFER = 1024 * 1024
const SLOT = 4096
const SLOTS = 16

/** Where the IP of the answer is. */
const IP = NLMSG_HEADER + NDMSG + ATTRIBUTE_HEADER

/** A request for a neighbour on the link with the MAC, without its IP. */
function answerOf(link: number, mac: string): Uint8Array {
  const address = Buffer.from(mac.replaceAll(':', ''), 'hex')
  const length = IP + 4 + ATTRIBUTE_HEADER + address.length
  const answer = Buffer.alloc(length)
  answer.writeUInt32LE(length, 0)
  answer.writeUInt16LE(RTM_NEWNEIGH, 4)
  answer.writeUInt16LE(FLAGS, 6)
  answer.writeUInt8(AF_INET, NLMSG_HEADER)
  answer.writeInt32LE(link, NLMSG_HEADER + 4)
  answer.writeUInt16LE(NUD_PERMANENT, NLMSG_HEADER + 8)
  answer.writeUInt16LE(ATTRIBUTE_HEADER + 4, IP - 4)
  answer.writeUInt16LE(NDA_DST, IP - 2)
  answer.writeUInt16LE(ATTRIBUTE_HEADER + address.length, IP + 4)
  answer.writeUInt16LE(NDA_LLADDR, IP + 6)
  address.copy(answer, IP + 8)
  return answer
}

async function main([link, mac = '']: readonly string[]): Promise<void> {
  const index = Number(link)
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
