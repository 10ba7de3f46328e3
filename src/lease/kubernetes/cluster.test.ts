import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { findCluster } from './find-cluster.ts'

const CA = '-----BEGIN CERTIFICATE-----'

/** A folder that goes with the test. */
function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'twt-'))
  t.after(() => rmSync(path, { recursive: true }))
  return path
}

function kubeconfig(cluster: string, user: string, rest = 'current-context: c'): string {
  return `apiVersion: v1
kind: Config
${rest}
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {${cluster}}}]
users: [{name: u, user: {${user}}}]
`
}

function written(t: TestContext, text: string) {
  const path = join(folder(t), 'kubeconfig')
  writeFileSync(path, text)
  return { path, find: (apiUrl = '') => findCluster({ kubeconfig: path, apiUrl, variables: {} }) }
}

test('a kubeconfig with all in it', async (t) => {
  const data = Buffer.from(CA).toString('base64')
  const { find } = written(
    t,
    kubeconfig(
      `server: "https://10.0.0.1:6443/k8s/", certificate-authority-data: ${data}, tls-server-name: kube`,
      `client-certificate-data: ${data}, client-key-data: ${data}`,
    ),
  )
  const { server, credentials } = await find()
  const pem = Buffer.from(CA)
  assert.equal(server, 'https://10.0.0.1:6443/k8s')
  assert.deepEqual(await credentials(), { ca: pem, cert: pem, key: pem, servername: 'kube' })
})

test('a kubeconfig with files beside it, which are read each time', async (t) => {
  const { path, find } = written(
    t,
    kubeconfig('server: "https://h", certificate-authority: ca.pem', 'tokenFile: token, token: never'),
  )
  const { credentials } = await find()
  await assert.rejects(credentials(), { code: 'unavailable', message: /ENOENT.*ca\.pem/ })
  writeFileSync(join(path, '../ca.pem'), CA)
  for (const token of ['one', 'two']) {
    writeFileSync(join(path, '../token'), `${token}\n`)
    assert.deepEqual(await credentials(), { ca: Buffer.from(CA), token })
  }
})

test('-kube-api-url goes before the server of a kubeconfig, and alone has no user', async (t) => {
  const { find } = written(
    t,
    kubeconfig('server: "https://h", insecure-skip-tls-verify: true', 'token: secret'),
  )
  const { server, credentials } = await find('https://other:6443/')
  assert.equal(server, 'https://other:6443')
  assert.deepEqual(await credentials(), { token: 'secret', rejectUnauthorized: false })
  const alone = await findCluster({ apiUrl: 'http://127.0.0.1:8080', variables: {} })
  assert.deepEqual([alone.server, await alone.credentials()], ['http://127.0.0.1:8080', {}])
})

test('in a pod', async (t) => {
  const serviceAccount = folder(t)
  const inPod = (host: string) =>
    findCluster({
      variables: { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: '443' },
      serviceAccount,
    })
  const { server, credentials } = await inPod('10.96.0.1')
  assert.equal(server, 'https://10.96.0.1')
  assert.equal((await inPod('fd00::1')).server, 'https://[fd00::1]')
  writeFileSync(join(serviceAccount, 'ca.crt'), CA)
  writeFileSync(join(serviceAccount, 'token'), 'secret')
  assert.deepEqual(await credentials(), { ca: Buffer.from(CA), token: 'secret' })
  await assert.rejects(findCluster({ variables: {} }), { code: 'invalid', message: /this is no pod/ })
})

describe('what cannot be used is said at once', () => {
  for (const [text, message] of [
    ['{', /kubeconfig: /],
    ['', /no current-context/],
    [kubeconfig('server: "https://h"', '', 'current-context: other'), /has no context "other"/],
    [kubeconfig('', ''), /cluster k has no server/],
    [kubeconfig('server: "ftp://h"', ''), /"ftp:\/\/h" is not a URL/],
    [kubeconfig('server: 7', ''), /server of cluster k is not a text/],
    [kubeconfig('server: "https://h", proxy-url: "http://p"', ''), /proxy-url, which is not supported/],
    [kubeconfig('server: "https://h"', 'exec: {command: aws}'), /user u has exec, which is not supported/],
    [kubeconfig('server: "https://h"', 'auth-provider: {name: gcp}'), /auth-provider/],
    [kubeconfig('server: "https://h"', 'client-certificate: c.pem'), /go together/],
  ] as const) {
    test(`${message}`, async (t) => {
      const { find } = written(t, text)
      await assert.rejects(find(), { code: 'invalid', message })
      await assert.rejects(find(), /^RegistryError: fail to create kubernetes config: /)
    })
  }
  test('a file that is not there', async () => {
    const missing = findCluster({ kubeconfig: '/nowhere/kubeconfig', variables: {} })
    await assert.rejects(missing, { code: 'invalid', message: /ENOENT/ })
  })
})
