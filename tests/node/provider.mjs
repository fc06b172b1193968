// A certified OpenID Provider over TLS 1.3 with everything strict: PKCE required, refresh tokens rotate, a reused one
// ends its family, revocation, `iss` in answers. /test/* counts requests and sets how long tokens live.
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { Provider } from 'oidc-provider';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const issuer = `https://127.0.0.1:${settings.port}`;
const counts = {};
let life = 3600;

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'authpipe-e2e',
    client_secret: settings.client_secret,
    redirect_uris: [settings.redirect_uri],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'client_secret_basic',
  }],
  pkce: { required: () => true },
  features: { revocation: { enabled: true }, devInteractions: { enabled: true } },
  rotateRefreshToken: true,
  issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
  scopes: ['openid', 'offline_access', 'profile'],
  ttl: { AccessToken: () => life, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 3600, AuthorizationCode: 60, IdToken: 3600 },
  cookies: { keys: ['a-key-of-the-test'] },
  findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
});
const count = (name) => { counts[name] = (counts[name] ?? 0) + 1; };
provider.on('grant.success', (ctx) => count(ctx.oidc.params.grant_type));
provider.on('grant.error', (ctx) => count('error'));
provider.on('grant.revoked', () => count('grant_revoked'));

const app = provider.callback();
https.createServer({ cert: readFileSync(settings.certificate), key: readFileSync(settings.key), minVersion: 'TLSv1.3' }, (req, res) => {
  const url = new URL(req.url, issuer);
  if (url.pathname === '/test/counts') return res.end(JSON.stringify(counts));
  if (url.pathname === '/test/life') { life = Number(url.searchParams.get('seconds')); return res.end('{}'); }
  if (url.pathname === '/token/revocation') count('revocation');
  return app(req, res);
}).listen(settings.port, '127.0.0.1');
