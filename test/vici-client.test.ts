/** The conversation with charon, against a server that says what charon says, or what it should not. */

import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { ViciClient } from '../src/vici/client.ts'
import { encodeMessage, encodeName, type ViciSection } from '../src/vici/message.ts'
import { PacketReader } from '../src/vici/packet.ts'

let folder: string
let server: Server
let sockets: Socket[] = []
/** What has been asked, as `type name`. */
let asked: string[] = []
/** Gives what the server sends for one request. */
let answer: (name: string, type: number) => readonly Buffer[]

function packet(type: number, message: ViciSection = {}, name?: string): Buffer {
  const title = name === undefined ? Buffer.alloc(0) : encodeName(name)
  const body = Buffer.concat([Buffer.of(type), title, encodeMessage(message)])
  const header = Buffer.alloc(4)
  header.writeUInt32BE(body.length)
  return Buffer.concat([header, body])
}

const OK = packet(1, { success: 'yes' })
const CONFIRMED = packet(5)

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tweed-vici-'))
  server = createServer((socket) => {
    sockets.push(socket)
    const reader = new PacketReader()
    socket.on('error', () => undefined)
    socket.on('data', (piece) => {
      for (const body of reader.push(piece)) {
        const [type = 0, length = 0] = body
        const name = body.subarray(2, 2 + length).toString()
        asked.push(`${type} ${name}`)
        for (const bytes of answer(name, type)) socket.write(bytes)
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(join(folder, 'vici'), resolve))
})

afterEach(() => {
  for (const socket of sockets) socket.destroy()
  sockets = []
  asked = []
})

after(async () => {
  await new Promise((resolve) => server.close(resolve))
  await rm(folder, { recursive: true })
})

const connect = () => ViciClient.connect(join(folder, 'vici'))

test('requests are answered one after the other', async () => {
  const client = await connect()
  answer = (name) => [packet(1, { success: 'yes', name })]
  const answers = await Promise.all(['a', 'b', 'c'].map((name) => client.request(name)))
  assert.deepEqual(
    answers.map(({ name }) => name),
    ['a', 'b', 'c'],
  )
})

test('a list is the events between its request and its answer', async () => {
  const client = await connect()
  answer = (_, type) => {
    if (type !== 0) return [CONFIRMED]
    return [
      packet(7, { a: {} }, 'list-conn'),
      packet(7, { x: {} }, 'log'),
      packet(7, { b: {} }, 'list-conn'),
      OK,
    ]
  }
  assert.deepEqual(await client.list('list-conns', 'list-conn'), [{ a: {} }, { b: {} }])
  assert.deepEqual(asked, ['3 list-conn', '0 list-conns', '4 list-conn'])
})

test('what charon refuses, or does not know, is an error, and the conversation goes on', async () => {
  const client = await connect()
  answer = () => [packet(1, { success: 'no', errmsg: 'no such thing' })]
  await assert.rejects(client.request('unload-conn'), {
    name: 'CharonError',
    message: 'charon refused unload-conn: no such thing',
  })
  answer = () => [packet(2)]
  await assert.rejects(client.request('x'), { name: 'CharonError', message: 'charon does not know x' })
  answer = () => [OK]
  assert.deepEqual(await client.request('x'), { success: 'yes' })
  assert.equal(client.isClosed, false)
})

test('a charon that goes away ends what is asked, and what will be', async () => {
  const client = await connect()
  answer = () => []
  const request = client.request('a')
  const next = client.request('b')
  request.catch(() => sockets[0]?.destroy())
  setTimeout(() => sockets[0]?.destroy(), 50)
  for (const one of [request, next]) {
    await assert.rejects(one, { name: 'CharonError', message: 'charon ended the conversation' })
  }
  await client.closed
  assert.equal(client.isClosed, true)
})

test('an answer that is none ends the conversation', async () => {
  for (const bytes of [packet(9), Buffer.from([255, 255, 255, 255]), packet(1).fill(3, 4)]) {
    const client = await connect()
    answer = () => [bytes]
    await assert.rejects(client.request('a'), { name: 'CharonError', message: /vici/ })
    await client.closed
  }
})

test('where nobody listens, it is said', async () => {
  await assert.rejects(ViciClient.connect(join(folder, 'nobody')), {
    name: 'CharonError',
    message: /^charon does not listen: connect ENOENT/,
  })
})
