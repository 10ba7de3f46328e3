import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DecodeError } from './attribute.ts'
import {
  Datagram,
  decodeAck,
  encodeMessage,
  type Message,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLMSG_DONE,
  NLMSG_ERROR,
  type Request,
  splitMessages,
} from './message.ts'
import { RTM_NEWNEIGH } from './rtnetlink.ts'

function datagramOf(requests: readonly Request[], datagram = new Datagram()): Datagram {
  for (const request of requests) datagram.add(request)
  return datagram
}

test('a datagram of messages whose payloads are padded', () => {
  const requests = [1, 2, 5].map((length) => ({
    type: length,
    flags: 7,
    payload: new Uint8Array(length).fill(9),
  }))
  const datagram = datagramOf(requests).finish(0xffffffff)
  assert.equal(datagram.length, 20 + 20 + 24)
  const expected = requests.map((request, i) => ({ ...request, sequence: [0xffffffff, 0, 1][i], port: 0 }))
  assert.deepEqual(splitMessages(datagram), expected)
})

test('a datagram in memory that was used before has nothing of it', () => {
  const used = datagramOf([
    { type: 1, flags: 1, payload: new Uint8Array(100).fill(0xff), operation: 'FIRST' },
  ])
  used.finish(1, 0xffff)
  used.clear()
  const requests = [5, 2].map((length) => ({ type: length, flags: 0, payload: new Uint8Array(length) }))
  assert.deepEqual(datagramOf(requests, used).finish(7, 4), datagramOf(requests).finish(7, 4))
  assert.deepEqual([used.count, used.operation(0)], [2, undefined])
})

test('only the last message of a datagram has the flags of the last', () => {
  const requests = [1, 2, 3].map((type) => ({ type, flags: 1, payload: new Uint8Array(4) }))
  const messages = splitMessages(datagramOf(requests).finish(0, 4))
  assert.deepEqual(
    messages.map(({ flags }) => flags),
    [1, 1, 5],
  )
})

test('an empty datagram', () => {
  assert.equal(new Datagram().finish(1, 4).length, 0)
})

for (const [title, length] of [
  ['shorter than its header', 15],
  ['longer than its datagram', 41],
  ['of length 0', 0],
] as const) {
  test(`a message ${title}`, () => {
    const datagram = encodeMessage({ type: 1, flags: 0, payload: new Uint8Array(4) }, 1)
    const second = encodeMessage({ type: 1, flags: 0, payload: new Uint8Array(4) }, 2)
    second[0] = length
    const split = () => splitMessages(Buffer.concat([datagram, second]))
    assert.throws(split, (error) => error instanceof DecodeError && error.offset === datagram.length)
  })
}

describe('acknowledgement', () => {
  const EOPNOTSUPP = 95
  const NOT_KNOWN = 524
  const header = (length: number) => [length, 0, 0, 0, RTM_NEWNEIGH, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
  const sentence = [7, 0, 1, 0, 0x6e, 0x6f, 0, 0]

  const error = (errno: number, rest: readonly number[], flags: number, type = NLMSG_ERROR): Message => {
    const bytes = new Uint8Array(4 + rest.length)
    new DataView(bytes.buffer).setInt32(0, -errno, true)
    bytes.set(rest, 4)
    return { type, flags, sequence: 1, port: 0, payload: bytes }
  }

  test('success', () => {
    assert.equal(decodeAck(error(0, header(16), NLM_F_CAPPED)), undefined)
    assert.equal(decodeAck(error(0, [], 0, NLMSG_DONE)), undefined)
  })

  test('the sentence stands behind the header of the request, or behind the whole request', () => {
    const capped = decodeAck(error(EOPNOTSUPP, [...header(20), ...sentence], NLM_F_CAPPED | NLM_F_ACK_TLVS))
    assert.equal(capped?.message, 'RTM_NEWNEIGH: EOPNOTSUPP: no')
    const whole = decodeAck(error(EOPNOTSUPP, [...header(20), 1, 2, 3, 4, ...sentence], NLM_F_ACK_TLVS))
    assert.deepEqual([whole?.code, whole?.errno, whole?.kernelMessage], ['EOPNOTSUPP', EOPNOTSUPP, 'no'])
  })

  test('a number without a name', () => {
    assert.equal(decodeAck(error(NOT_KNOWN, header(16), 0))?.code, 'errno 524')
  })

  test('a dump that failed names the request that is told', () => {
    const done = error(EOPNOTSUPP, sentence, NLM_F_ACK_TLVS, NLMSG_DONE)
    assert.equal(decodeAck(done, 'RTM_GETROUTE')?.message, 'RTM_GETROUTE: EOPNOTSUPP: no')
    assert.equal(decodeAck(done)?.operation, 'dump')
    const refused = error(EOPNOTSUPP, header(16), NLM_F_CAPPED)
    assert.equal(decodeAck(refused)?.operation, 'RTM_NEWNEIGH')
    // In generic netlink the type is the number of a family.
    assert.equal(decodeAck(refused, 'CTRL_CMD_GETFAMILY')?.operation, 'CTRL_CMD_GETFAMILY')
  })

  test('a request of a length that is not there', () => {
    for (const length of [0x40, 0xff]) {
      assert.throws(() => decodeAck(error(EOPNOTSUPP, header(length), NLM_F_ACK_TLVS)), DecodeError)
    }
  })
})
