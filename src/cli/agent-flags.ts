/** The agent's flags: all of flanneld's, with its defaults, and a few of tweed's own. */

import type { FlagTable } from '../config/flags.ts'

/** flanneld's variables: `FLANNELD_IFACE` for `-iface`. */
export const VARIABLE_PREFIX = 'FLANNELD_'

export const AGENT_FLAGS = {
  registry: {
    kind: 'string',
    default: '',
    help: 'where leases are kept: etcd:URL,URL, kubernetes: or, for the agents of one machine, sqlite:PATH; else -etcd-endpoints says',
  },
  'etcd-endpoints': {
    kind: 'string',
    default: 'http://127.0.0.1:4001,http://127.0.0.1:2379',
    help: 'URLs of etcd, separated by commas',
  },
  'etcd-prefix': { kind: 'string', default: '/coreos.com/network', help: 'what all keys in etcd begin with' },
  'etcd-keyfile': { kind: 'string', default: '', help: 'key of our TLS certificate for etcd' },
  'etcd-certfile': { kind: 'string', default: '', help: 'our TLS certificate for etcd' },
  'etcd-cafile': { kind: 'string', default: '', help: 'TLS certificate authority of etcd' },
  'etcd-username': { kind: 'string', default: '', help: 'user in etcd' },
  'etcd-password': { kind: 'string', default: '', help: 'password in etcd' },
  iface: {
    kind: 'string',
    default: '',
    help: 'external interface, by name or IP; else that of -public-ip or of the default route',
    repeatable: true,
  },
  'iface-regex': {
    kind: 'string',
    default: '',
    help: 'external interface, by a regular expression for its IP or name; tried after -iface',
    repeatable: true,
  },
  'iface-can-reach': {
    kind: 'string',
    default: '',
    help: 'external interface: the one through which this IP is reached',
  },
  'public-ip': {
    kind: 'string',
    default: '',
    help: 'IP that other hosts send to; else the address of the interface',
  },
  'public-ipv6': { kind: 'string', default: '', help: 'the same for IPv6' },
  'subnet-file': {
    kind: 'string',
    default: '/run/flannel/subnet.env',
    help: 'file for the subnet, network and MTU; the status socket stands beside it',
  },
  'subnet-lease-renew-margin': {
    kind: 'integer',
    default: '60',
    help: 'minutes before its end that the lease is renewed, 1 to 1439',
  },
  'lease-grace': {
    kind: 'integer',
    default: '300',
    help: 'seconds that leases are kept which a replaced registry lacks',
  },
  'ip-masq': {
    kind: 'boolean',
    default: 'false',
    help: 'masquerade what leaves the network',
  },
  'ip-masq-fully-random-disable': {
    kind: 'boolean',
    default: 'false',
    help: 'masquerade without random source ports',
  },
  'iptables-forward-rules': {
    kind: 'boolean',
    default: 'true',
    help: "accept the network's packets in FORWARD",
  },
  'iptables-resync': { kind: 'integer', default: '5', help: 'seconds between two looks at the rules' },
  'ip-blackhole-route': {
    kind: 'boolean',
    default: 'false',
    help: 'end here what goes to an address of our subnet that no container has',
  },
  'healthz-ip': { kind: 'string', default: '0.0.0.0', help: 'IP of the health server' },
  'healthz-port': { kind: 'integer', default: '0', help: 'port of the health server; 0: none' },
  'kube-subnet-mgr': {
    kind: 'boolean',
    default: 'false',
    help: 'leases are kept in the Kubernetes API: podCIDR and annotations of nodes; the same as -registry=kubernetes:',
  },
  'kube-api-url': {
    kind: 'string',
    default: '',
    help: 'URL of the API server; else that of -kubeconfig-file, or of the pod that this is',
  },
  'kube-annotation-prefix': {
    kind: 'string',
    default: 'flannel.alpha.coreos.com',
    help: 'what our annotations begin with: a domain, and after a slash a name',
  },
  'kubeconfig-file': {
    kind: 'string',
    default: '',
    help: 'kubeconfig with the API server and our user there',
  },
  'net-config-path': {
    kind: 'string',
    default: '/etc/kube-flannel/net-conf.json',
    help: 'file with the network config, with Kubernetes',
  },
  'set-node-network-unavailable': {
    kind: 'boolean',
    default: 'true',
    help: "set our node's condition NetworkUnavailable to False once there is a network",
  },
  v: { kind: 'integer', default: '0', help: 'verbosity: 1 and above also logs what is usual' },
  vmodule: { kind: 'string', default: '', help: 'taken and ignored' },
  log_backtrace_at: { kind: 'string', default: '', help: 'taken and ignored' },
  version: { kind: 'boolean', default: 'false', help: 'print the version on stderr' },
  help: { kind: 'boolean', default: 'false', help: 'print this help' },
} as const satisfies FlagTable
