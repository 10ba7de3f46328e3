/** What the API server's client does with answers that a real server gives rarely. */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { KubernetesClient, statusOf } from './client.ts'
import { Followed, follow } from './follow.ts'
import { readNode } from './node.ts'

async function clientOf(t: TestContext, answer: RequestListener): Promise<KubernetesClient> {
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const client = new KubernetesClient({
    cluster: { server: url, credentials: async () => ({}) },
    silence: 300,
  })
  t.after(() => {
    client.close()
    server.closeAllConnections()
    server.close()
  })
  return client
}

const get = (client: KubernetesClient, t: TestContext): Promise<unknown> =>
  client.call('get', { method: 'GET', path: '/api/v1/nodes/a' }, t.signal)

test('a server that is busy is given the time that it asks for', async (t) => {
  const statuses = [429, 503, 200]
  const client = await clientOf(t, (_, response) => {
    response.writeHead(statuses.shift() ?? 500, { 'retry-after': '0' }).end('{"a":1}')
  })
  assert.deepEqual(await get(client, t), { a: 1 })
  assert.deepEqual(statuses, [])
})

test('one that stays busy is not asked for ever; one that says no time is asked once', async (t) => {
  let count = 0
  const client = await clientOf(t, ({ url }, response) => {
    count++
    response.writeHead(503, url === '/api/v1/nodes/a' ? { 'retry-after': '0' } : {}).end('<html>')
  })
  await assert.rejects(get(client, t), { code: 'unavailable', message: /: HTTP status 503$/ })
  assert.equal(count, 4)
  const once = client.call('get', { method: 'GET', path: '/other' }, t.signal)
  await assert.rejects(once, (error) => statusOf(error) === 503)
  assert.equal(count, 5)
})

test('a connection that the server gave up in the meantime is made again, a new one is not', async (t) => {
  const requests = new Map<unknown, number>()
  const client = await clientOf(t, ({ socket, url }, response) => {
    const count = (requests.get(socket) ?? 0) + 1
    requests.set(socket, count)
    if (count > 1 || url === '/never') socket.destroy()
    else response.end('{}')
  })
  assert.deepEqual(await get(client, t), {})
  assert.deepEqual(await get(client, t), {})
  assert.equal(requests.size, 2)
  const never = client.call('get', { method: 'GET', path: '/never' }, t.signal)
  await assert.rejects(never, { code: 'unavailable', message: /socket hang up/ })
})

describe('an answer that cannot be used', () => {
  for (const [text, message] of [
    ['<html>', /its answer is not JSON/],
    ['[]', /its answer is no list of nodes/],
    ['{"items":[],"metadata":{}}', /its answer is no list of nodes/],
    ['{"items":{},"metadata":{"resourceVersion":"1"}}', /its answer is no list of nodes/],
    ['{"items":[],"metadata":{"resourceVersion":"1","continue":"x"}}', /gives one page again/],
  ] as const) {
    test(text, async (t) => {
      const client = await clientOf(t, (_, response) => response.end(text))
      const followed = new Followed(client, { read: (node) => readNode(node, '', []) })
      for await (const tick of follow(followed, t.signal)) {
        assert.ok(tick.kind === 'unavailable')
        assert.match(tick.reason, message)
        break
      }
    })
  }
})

/** Until something is said of node b: the names of a list, and with a plus those of changes. */
async function seenUntilB(t: TestContext, client: KubernetesClient): Promise<string[]> {
  const followed = new Followed(client, { read: (node) => readNode(node, '', []) })
  const seen: string[] = []
  for await (const tick of follow(followed, t.signal)) {
    if (tick.kind === 'contents') seen.push([...tick.nodes.keys()].join())
    else if (tick.kind === 'changes') seen.push(`+${[...tick.changes.keys()].join()}`)
    else assert.fail(tick.reason)
    if (seen.at(-1)?.includes('b') === true) break
  }
  return seen
}

const LIST = '{"items":[{"metadata":{"name":"a"}},null,7],"metadata":{"resourceVersion":"5"}}'

test('events of a watch that make no sense are passed over; 410 in its place is a new list', async (t) => {
  let lists = 0
  const client = await clientOf(t, ({ url = '' }, response) => {
    if (!url.includes('watch=1')) {
      lists++
      response.end(LIST)
    } else if (lists > 1) {
      response.write(
        'null\n{"type":7}\n{"type":"ADDED"}\n{"type":"DELETED","object":{"metadata":{"name":"z"}}}\n',
      )
      response.end('{"type":"ADDED","object":{"metadata":{"name":"b","resourceVersion":"6"}}}\n{"type":')
    } else response.writeHead(410).end('{"message":"too old"}')
  })
  assert.deepEqual(await seenUntilB(t, client), ['a', 'a', '+', '+b'])
})

test('what comes before an error in a watch is told', async (t) => {
  const client = await clientOf(t, ({ url = '' }, response) => {
    if (!url.includes('watch=1')) response.end(LIST)
    else {
      const added = '{"type":"ADDED","object":{"metadata":{"name":"b","resourceVersion":"6"}}}'
      response.end(`${added}\n{"type":"ERROR","object":{"code":410,"message":"too old"}}\n`)
    }
  })
  assert.deepEqual(await seenUntilB(t, client), ['a', '+', '+b'])
})

test('a signal ends a call that has no answer, and a watch', async (t) => {
  const client = await clientOf(t, ({ url = '' }, response) => {
    if (url === '/watch') response.flushHeaders()
  })
  for (const path of ['/call', '/watch']) {
    const stop = new AbortController()
    const watching = (async () => {
      for await (const _ of client.watch(path, stop.signal)) stop.abort()
    })()
    if (path === '/call') setTimeout(() => stop.abort(), 50)
    await assert.rejects(watching, { name: 'AbortError' })
  }
})
